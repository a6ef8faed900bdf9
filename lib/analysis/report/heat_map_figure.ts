import type { Plan } from '../../plan/plan.js';
import type { Similarity } from '../similarity/similarity.js';
import { drawing, figure } from './figure.js';
import { at, decimals, whole } from './format.js';
import { markup, type Markup } from './markup.js';
import { HEAT_LEVELS } from './palette.js';
import { planName } from './plan_name.js';

/** Cells to a side at most; of more layers, neighbours share a cell. */
const MOST_CELLS = 96;
/** The angle from which on two inputs have the lightest colour. Sharing an input is decided far below it. */
const WIDEST_DEGREES = 60;
const SIZE = 384;
const LEFT = 34;
const TOP = 30;
const LEGEND = 54;
const LEGEND_COSINES = [1, 0.99, 0.95, 0.9, 0.8, 0.65, 0.5];

/** How alike the inputs of every two layers are, with the groups of a plan drawn on it. */
export function heatMapFigure({ inputCosine, tokens }: Similarity, plan: Plan): Markup {
  const layers = inputCosine.length;
  const perCell = Math.ceil(layers / MOST_CELLS);
  const cells = Math.ceil(layers / perCell);
  const pixels = SIZE / cells;
  const place = (layer: number): number => (layer / perCell) * pixels;
  const neighbours = inputCosine.slice(1).map((row, i) => row[i]!);
  const mean = neighbours.reduce((sum, value) => sum + value, 0) / Math.max(1, neighbours.length);
  const body = [
    markup`<g transform="translate(${LEFT} ${TOP})">`,
    Array.from({ length: cells * cells }, (_, i) =>
      cell(inputCosine, Math.floor(i / cells), i % cells, perCell, pixels),
    ),
    axis(layers, place),
    plan.groups.map((group) => bracket(group, place)),
    markup`</g>`,
    heatLegend(),
  ];
  const shared = perCell > 1 ? ` Each cell is the mean of ${perCell} × ${perCell} pairs.` : '';
  return figure(
    drawing({
      id: 'similarity',
      title: 'Similarity of layer inputs',
      description:
        `Cosine of the inputs of every two of ${layers} layers, mean over ${whole(tokens)} tokens; ` +
        `neighbours have ${decimals(mean, 3)} on ` +
        `average.${plan.groups.length > 0 ? ` Brackets mark the groups of ${planName(plan)}.` : ''}`,
      width: LEFT + SIZE + 12,
      height: TOP + SIZE + LEGEND,
      body,
    }),
    markup`<b>Which layers see nearly the same input.</b> Cosine of the inputs of every two layers of the sequential model, mean over ${whole(tokens)} tokens; the darker or, on a dark page, the brighter, the more alike.${plan.groups.length > 0 && ` Brackets: the groups of ${planName(plan)}.`}${shared}`,
  );
}

/** The colour of a cosine: its angle, because cosines crowd together near 1. */
export function heatLevel(cosine: number): number {
  const degrees = (Math.acos(Math.min(1, Math.max(-1, cosine))) * 180) / Math.PI;
  return Math.round((1 - Math.min(1, degrees / WIDEST_DEGREES)) * (HEAT_LEVELS - 1));
}

function cell(matrix: readonly number[][], row: number, column: number, size: number, pixels: number): Markup {
  const values = matrix
    .slice(row * size, (row + 1) * size)
    .flatMap((line) => line.slice(column * size, (column + 1) * size));
  const cosine = values.reduce((sum, value) => sum + value, 0) / values.length;
  const name = (index: number): string =>
    size === 1 ? `${index}` : `${index * size}–${Math.min((index + 1) * size, matrix.length) - 1}`;
  // Neighbours overlap by a hair, so that no seam shows between them.
  return markup`<rect class="h${heatLevel(cosine)}" x="${at(column * pixels)}" y="${at(row * pixels)}" width="${at(pixels + 0.3)}" height="${at(pixels + 0.3)}"><title>layers ${name(row)} and ${name(column)}: ${decimals(cosine, 4)}</title></rect>`;
}

/** Layer numbers along both sides, as many as there is room for. */
function axis(layers: number, place: (layer: number) => number): Markup[] {
  const every = [1, 2, 4, 8, 16, 32, 64, 128].find((count) => place(count) >= 20) ?? 256;
  return Array.from({ length: Math.ceil(layers / every) }, (_, i) => {
    const middle = (place(i * every) + place(i * every + 1)) / 2;
    return markup`<text class="tick" x="-14" y="${at(middle + 4)}" text-anchor="end">${i * every}</text><text class="tick" x="${at(middle)}" y="-14" text-anchor="middle">${i * every}</text>`;
  });
}

/** A group: its square on the diagonal, and a bracket along each side. */
function bracket(group: readonly number[], place: (layer: number) => number): Markup {
  const [from, to] = [place(group[0]!), place(group.at(-1)! + 1)];
  const [a, b] = [at(from + 1.5), at(to - 1.5)];
  const size = at(to - from - 2);
  const square = markup`x="${at(from + 1)}" y="${at(from + 1)}" width="${size}" height="${size}" rx="2"`;
  return markup`<rect class="halo" ${square}/><rect class="bracket" ${square}/><path class="bracket" d="M${a} -4V-9H${b}V-4M-4 ${a}H-9V${b}H-4"/>`;
}

function heatLegend(): Markup {
  const top = TOP + SIZE + 14;
  const width = SIZE / HEAT_LEVELS;
  const cosine = (place: number): number => Math.cos(((1 - place) * WIDEST_DEGREES * Math.PI) / 180);
  const swatches = Array.from(
    { length: HEAT_LEVELS },
    (_, i) =>
      markup`<rect class="h${heatLevel(cosine(i / (HEAT_LEVELS - 1)))}" x="${at(LEFT + i * width)}" y="${top}" width="${at(width + 0.3)}" height="10"/>`,
  );
  const labels = LEGEND_COSINES.map((value) => {
    const x = LEFT + SIZE * (1 - (Math.acos(value) * 180) / Math.PI / WIDEST_DEGREES);
    return markup`<text class="tick" x="${at(x)}" y="${top + 24}" text-anchor="${value === 1 ? 'end' : value === 0.5 ? 'start' : 'middle'}">${value === 0.5 ? '≤ 0.5' : value}</text>`;
  });
  return markup`${swatches}${labels}`;
}
