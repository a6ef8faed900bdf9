const COLUMNS = 80;
/**
 * Least cosine of each shade. They lie close together near 1, where sharing an input is decided: 11°, 18°, 26° and 41°.
 */
const SHADES: ReadonlyArray<readonly [shade: string, least: number]> = [
  ['█', 0.98],
  ['▓', 0.95],
  ['▒', 0.9],
  ['░', 0.75],
];
const LABEL_EVERY = 5;

/**
 * A symmetric matrix of cosines as shaded text of at most 80 columns, with its legend. Up to 38 layers have two
 * characters each, up to 77 have one; of more, neighbours share a cell that shows their mean.
 */
export function drawHeatMap(matrix: readonly number[][]): string {
  const layers = matrix.length;
  const labelWidth = String(layers - 1).length;
  const room = COLUMNS - labelWidth - 1;
  const width = 2 * layers <= room ? 2 : 1;
  const perCell = Math.ceil((layers * width) / room);
  const starts = Array.from({ length: Math.ceil(layers / perCell) }, (_, cell) => cell * perCell);
  const rows = starts.map(
    (i) =>
      `${String(i).padStart(labelWidth)} ` +
      `${starts.map((j) => shadeOf(meanOf(matrix, i, j, perCell)).repeat(width)).join('')}`,
  );
  const note = perCell > 1 ? `each cell is the mean of ${perCell} x ${perCell} pairs\n` : '';
  const lines = [`${' '.repeat(labelWidth + 1)}${columnLabels(starts, width)}`, ...rows];
  return (
    'cosine of the inputs of two layers: ' +
    `${legend()}\n${note}\n${lines.map((line) => `${line.trimEnd()}\n`).join('')}`
  );
}

/** The layer above every fifth cell, where there is room for it. */
function columnLabels(starts: readonly number[], width: number): string {
  let line = '';
  for (let cell = 0; cell < starts.length; cell += LABEL_EVERY) {
    const label = String(starts[cell]);
    if (cell * width + label.length <= starts.length * width) line = line.padEnd(cell * width) + label;
  }
  return line;
}

function meanOf(matrix: readonly number[][], row: number, column: number, size: number): number {
  const cells = matrix.slice(row, row + size).flatMap((values) => values.slice(column, column + size));
  return cells.reduce((sum, value) => sum + value, 0) / cells.length;
}

function shadeOf(cosine: number): string {
  return SHADES.find(([, least]) => cosine >= least)?.[0] ?? ' ';
}

function legend(): string {
  return `at least ${SHADES.map(([shade, least]) => `${shade} ${least.toFixed(2)}`).join('  ')}`;
}
