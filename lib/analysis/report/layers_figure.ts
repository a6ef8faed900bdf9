import type { Plan } from '../../plan/plan.js';
import type { Similarity } from '../similarity/similarity.js';
import { drawing, figure, legend, table } from './figure.js';
import { at, decimals, whole } from './format.js';
import { markup, type Content, type Markup } from './markup.js';
import { linearScale, logScale, type Scale } from './scale.js';

const WIDTH = 430;
const LEFT = 44;
const RIGHT = 10;
const PANEL = 214;

interface Series {
  className: string;
  name: string;
  values: readonly number[];
}

/** What every layer adds to its input, and how far it turns it. */
export function layersFigure(similarity: Similarity, plan: Plan): Markup {
  const { attentionRatio, mlpRatio, influence } = similarity;
  const added: Series[] = [
    { className: 'attention', name: 'attention block, ‖a‖ ∕ ‖x‖', values: attentionRatio },
    { className: 'down', name: 'MLP block, ‖m‖ ∕ ‖x‖', values: mlpRatio },
  ];
  const turned: Series[] = [{ className: 'accent', name: 'influence, 1 − cos(input, output)', values: influence }];
  return figure(
    [
      legend(added.map(({ className, name }) => [`k-${className}`, name] as const)),
      panel(
        'added',
        'What each layer adds',
        'Norms of what the attention and MLP blocks add, relative to the layer input, on a logarithmic scale.',
        added,
        plan,
      ),
      legend(turned.map(({ className, name }) => [`k-${className}`, name] as const)),
      panel(
        'influence',
        'Influence of each layer',
        'How far each layer turns its input, 1 minus the cosine of input and output, on a logarithmic scale.',
        turned,
        plan,
      ),
    ],
    markup`<b>What each layer does to its input.</b> Means over ${whole(similarity.tokens)} tokens, logarithmic scales. Layers that add little, and turn their input little, lose little in a group.${plan.groups.length > 0 && ' Shaded: the groups.'}`,
  );
}

/** The figure's numbers as a table, with each layer's cosine with the next. */
export function layersTable({
  inputCosine,
  inputNorm,
  deltaRatio,
  attentionRatio,
  mlpRatio,
  influence,
}: Similarity): Markup {
  const rows = inputCosine.map((row, layer): Content[] => [
    layer,
    row[layer + 1] === undefined ? '' : decimals(row[layer + 1]!, 4),
    ...[inputNorm, deltaRatio, attentionRatio, mlpRatio, influence].map((values) => decimals(values[layer]!, 4)),
  ]);
  return table(
    'layers-table',
    'Each layer, as means over tokens',
    ['layer', 'cosine with next', 'norm ‖x‖', 'delta ‖a+m‖∕‖x‖', 'attention', 'MLP', 'influence'],
    rows,
  );
}

function panel(id: string, title: string, description: string, series: readonly Series[], plan: Plan): Markup {
  const layers = series[0]!.values.length;
  const positive = series.flatMap(({ values }) => values).filter((value) => value > 0);
  const [low, high] =
    positive.length > 0
      ? [10 ** Math.floor(Math.log10(Math.min(...positive))), 10 ** Math.ceil(Math.log10(Math.max(...positive)))]
      : [0.1, 1];
  const x = linearScale([-0.5, layers - 0.5], [LEFT, WIDTH - RIGHT]);
  const y = logScale([low, high > low ? high : low * 10], [PANEL - 24, 10]);
  const body = [
    plan.groups.map(
      (group) =>
        markup`<rect class="band" x="${at(x(group[0]! - 0.5) + 0.5)}" y="10" width="${at(x(group.at(-1)! + 0.5) - x(group[0]! - 0.5) - 1)}" height="${PANEL - 34}"/>`,
    ),
    decades(low, high).map(
      (value) =>
        markup`<path class="grid" d="M${LEFT} ${at(y(value))}H${WIDTH - RIGHT}"/><text class="tick" x="${LEFT - 6}" y="${at(y(value) + 4)}" text-anchor="end">${value}</text>`,
    ),
    layerTicks(layers, x),
    series.map((one) => line(one, x, y)),
  ];
  return drawing({ id, title, description, width: WIDTH, height: PANEL, body });
}

function line({ className, name, values }: Series, x: Scale, y: Scale): Markup {
  const path = values.map((value, layer) => `${layer === 0 ? 'M' : 'L'}${at(x(layer))} ${at(y(value))}`).join('');
  const dots = values.map(
    (value, layer) =>
      markup`<circle class="k-${className}" cx="${at(x(layer))}" cy="${at(y(value))}" r="3"><title>layer ${layer}, ${name}: ${decimals(value, 4)}</title></circle>`,
  );
  return markup`<path class="line s-${className}" d="${path}"/>${dots}`;
}

function layerTicks(layers: number, x: Scale): Markup[] {
  const every = [1, 2, 4, 8, 16, 32, 64, 128].find((count) => x(count) - x(0) >= 22) ?? 256;
  return Array.from(
    { length: Math.ceil(layers / every) },
    (_, i) =>
      markup`<text class="tick" x="${at(x(i * every))}" y="${PANEL - 6}" text-anchor="middle">${i * every}</text>`,
  );
}

function decades(low: number, high: number): number[] {
  const count = Math.round(Math.log10(high / low));
  return Array.from({ length: count + 1 }, (_, i) => Number((low * 10 ** i).toPrecision(3)));
}
