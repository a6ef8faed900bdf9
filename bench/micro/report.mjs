import { runLine } from '../../tools/run_info.mjs';

const HEAD = ['', 'per', 'median', 'min–max', 'rate', 'of bandwidth'];

function cellsOf(row) {
  const rate = row.gigaflopsPerSecond
    ? `${row.gigaflopsPerSecond.toFixed(1)} GFLOP/s`
    : row.gigabytesPerSecond
      ? bytesPerSecond(row.gigabytesPerSecond)
      : '';
  const share = row.ofBandwidth === undefined ? '' : `${(100 * row.ofBandwidth).toFixed(0)} %`;
  return [
    `${row.group}: ${row.name}`,
    row.per,
    duration(row.median),
    `${duration(row.min)} – ${duration(row.max)}`,
    rate,
    share,
  ];
}

export function table(rows, run) {
  const lines = [HEAD, ...rows.map(cellsOf)];
  const widths = HEAD.map((_, column) => Math.max(...lines.map((cells) => cells[column].length)));
  const text = lines.map((cells) =>
    cells
      .map((cell, i) => (i < 2 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])))
      .join('  ')
      .trimEnd(),
  );
  return `${text.join('\n')}\n\n${footer(run)}`;
}

export function markdown(rows, run, skipped) {
  const lines = [HEAD, HEAD.map(() => '---'), ...rows.map(cellsOf)].map((cells) => `| ${cells.join(' | ')} |`);
  return `${footer(run)}\n\n${[...lines, ...skipped.map((reason) => `\nskipped: ${reason}`)].join('\n')}\n`;
}

function footer(run) {
  return `${runLine(run)}${run.bandwidthGBs === undefined ? '' : ` One thread reads ${run.bandwidthGBs.toFixed(1)} GB/s at best.`}`;
}

/** Three significant digits and a unit. */
function duration(microseconds) {
  const [value, unit] =
    microseconds < 1
      ? [microseconds * 1000, 'ns']
      : microseconds < 1000
        ? [microseconds, 'µs']
        : [microseconds / 1000, 'ms'];
  return `${value >= 100 ? value.toFixed(0) : value.toPrecision(3)} ${unit}`;
}

function bytesPerSecond(gigabytes) {
  return gigabytes < 1 ? `${(gigabytes * 1000).toPrecision(3)} MB/s` : `${gigabytes.toPrecision(3)} GB/s`;
}
