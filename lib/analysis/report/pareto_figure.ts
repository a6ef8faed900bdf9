import { drawing, figure, legend } from './figure.js';
import { at, decimals, quantity, whole } from './format.js';
import { placeLabels } from './label_places.js';
import { markup, type Markup } from './markup.js';
import type { ReportData, Spread } from './report_data.js';
import { linearScale, padded, tickDigits, ticks, type Scale } from './scale.js';

const WIDTH = 430;
const HEIGHT = 350;
const FRAME = { left: 58, right: WIDTH - 14, top: 14, bottom: HEIGHT - 46 };
const RADIUS = 6;
/** How far beyond the quartiles of the fastest and slowest plan bars go on before they are cut off. */
const MOST_BEYOND = 0.12;

/** A plan in a plot of cost over time. */
interface Point {
  name: string;
  /** What is written beside it. */
  label: string;
  kind: 'sequential' | 'measured' | 'searched';
  ms: Spread;
  cost: number;
  /** The standard error of the cost. */
  standardError: number;
}

interface Axis {
  id: string;
  title: string;
  unit: string;
  /** What the cost is never below. */
  floor?: number;
}

/** What plans cost over what they save: KL divergence, and perplexity. */
export function paretoFigure({
  rows,
  front,
  text,
  timing,
}: Pick<ReportData, 'rows' | 'front' | 'text' | 'timing'>): Markup {
  const kindOf = (index: number): Point['kind'] => (index === 0 ? 'sequential' : 'measured');
  const searched = front?.plans ?? [];
  const divergences = [
    ...rows.map(({ name, msPerToken, quality: { kl } }, i): Point => ({
      name,
      label: name,
      kind: kindOf(i),
      ms: msPerToken,
      cost: kl.mean,
      standardError: kl.standardError,
    })),
    ...searched.map(({ name, phases, msPerToken, kl, klStandardError }): Point => ({
      name,
      label: `${phases} phases`,
      kind: 'searched',
      ms: msPerToken,
      cost: kl,
      standardError: klStandardError,
    })),
  ];
  // The search's perplexities are of another text, or another part of it, and so not to be compared with these.
  const perplexities = rows.map(({ name, msPerToken, quality }, i): Point => ({
    name,
    label: name,
    kind: kindOf(i),
    ms: msPerToken,
    cost: quality.perplexity,
    standardError: quality.perplexityStandardError,
  }));
  const searchedWords =
    front &&
    front.plans.length > 0 &&
    markup` Hollow: the front of the search in ${front.file}, timed here, its KL on ${whole(front.tokens)} held-out tokens of ${front.text}.`;
  return figure(
    [
      legend([
        ['m-sequential', 'sequential, lossless'],
        ['m-measured', 'a plan, lossy'],
        ...(searched.length > 0 ? [['m-searched', 'found by plan search'] as const] : []),
      ]),
      markup`<div class="pair">${plot({ id: 'kl', title: 'KL divergence over time per token', unit: 'KL divergence, nats per token', floor: 0 }, divergences)}${plot({ id: 'perplexity', title: 'Perplexity over time per token', unit: 'perplexity' }, perplexities)}</div>`,
    ],
    markup`<b>What plans cost, and what they save.</b> Lower is closer to the trained model, further left is faster. Horizontal bars: the fastest and slowest of ${timing.rounds} interleaved rounds, thick the middle half, each round the median of ${timing.tokens} tokens; an arrow: the bar goes on. Vertical bars: standard error over ${whole(rows[0]!.quality.tokens)} tokens of ${text.name}; perplexities of one text move together, so their differences are surer than these bars.${searchedWords}`,
  );
}

function plot({ id, title, unit, floor }: Axis, points: readonly Point[]): Markup {
  const [xFrom, xTo] = timeRange(points.map(({ ms }) => ms));
  const [low, high] = padded(
    points.flatMap(({ cost, standardError }) => [cost - standardError, cost + standardError]),
    0.12,
  );
  const yFrom = floor === undefined ? low : Math.min(floor, -0.05 * high);
  const x = linearScale([xFrom, xTo], [FRAME.left, FRAME.right]);
  const y = linearScale([yFrom, high], [FRAME.bottom, FRAME.top]);
  const places = points.map(({ label, ms, cost }) => ({ name: label, x: x(ms.median), y: y(cost) }));
  const labels = placeLabels(places, FRAME, RADIUS + 4).map(
    (label) =>
      label &&
      markup`<text class="point" x="${at(label.x)}" y="${at(label.y)}" text-anchor="${label.anchor}">${label.name}</text>`,
  );
  const body = [
    grid(x, y, [xFrom, xTo], [yFrom, high], floor, unit),
    frontLine(points, x, y),
    points.map((point) => bars(point, x, y)),
    points.map((point) => marker(point, x, y)),
    labels,
  ];
  const words = points.map(({ name, ms, cost }) => `${name}: ${quantity(ms.median)} ms, ${quantity(cost)}`);
  return drawing({
    id,
    title,
    description: `Milliseconds per token and ${unit}. ${words.join('; ')}.`,
    width: WIDTH,
    height: HEIGHT,
    body,
  });
}

/** All of every bar, unless a few slow rounds would leave no room for the rest. */
function timeRange(times: readonly Spread[]): [number, number] {
  const [slowest, fastest] = [Math.max(...times.map(({ high }) => high)), Math.min(...times.map(({ low }) => low))];
  const shown = times.flatMap(({ min, max }) => [
    Math.max(min, fastest * (1 - MOST_BEYOND)),
    Math.min(max, slowest * (1 + MOST_BEYOND)),
  ]);
  return padded(shown, 0.06);
}

function grid(
  x: Scale,
  y: Scale,
  xRange: [number, number],
  yRange: [number, number],
  floor: number | undefined,
  unit: string,
): Markup {
  const [xs, ys] = [ticks(...xRange, 5), ticks(Math.max(yRange[0], floor ?? yRange[0]), yRange[1], 5)];
  return markup`${ys.map((value) => markup`<path class="grid" d="M${FRAME.left} ${at(y(value))}H${FRAME.right}"/><text class="tick" x="${FRAME.left - 7}" y="${at(y(value) + 4)}" text-anchor="end">${decimals(value, tickDigits(ys))}</text>`)}
${xs.map((value) => markup`<path class="grid" d="M${at(x(value))} ${FRAME.top}V${FRAME.bottom}"/><text class="tick" x="${at(x(value))}" y="${FRAME.bottom + 18}" text-anchor="middle">${decimals(value, tickDigits(xs))}</text>`)}
<text class="axis" x="${FRAME.right}" y="${HEIGHT - 8}" text-anchor="end">milliseconds per token →</text>
<text class="axis" transform="translate(13 ${FRAME.top}) rotate(-90)" text-anchor="end">${unit} →</text>`;
}

/** Through the measured plans that none is both faster and closer than. */
function frontLine(points: readonly Point[], x: Scale, y: Scale): Markup {
  const front: Point[] = [];
  for (const point of points
    .filter(({ kind }) => kind !== 'searched')
    .toSorted((a, b) => a.ms.median - b.ms.median || a.cost - b.cost)) {
    if (front.length === 0 || point.cost < front.at(-1)!.cost) front.push(point);
  }
  const path = front.map(({ ms, cost }, i) => `${i === 0 ? 'M' : 'L'}${at(x(ms.median))} ${at(y(cost))}`).join('');
  return markup`<path class="front" d="${path}"/>`;
}

function bars({ kind, ms, cost, standardError }: Point, x: Scale, y: Scale): Markup {
  const [middle, level] = [x(ms.median), y(cost)];
  const [low, high] = [at(y(cost - standardError)), at(y(cost + standardError))];
  const [fastest, slowest] = [x(ms.min), x(ms.max)];
  // A bar ends in a cross line, or in an arrow where it is cut off.
  const left =
    fastest >= FRAME.left
      ? `M${at(fastest)} ${at(level - 4)}v8m0 -4`
      : `M${FRAME.left + 5} ${at(level - 4)}l-5 4l5 4m-5 -4`;
  const right = slowest <= FRAME.right ? `H${at(slowest)}m0 -4v8` : `H${FRAME.right}m-5 -4l5 4l-5 4`;
  const vertical =
    standardError > 0 ? `M${at(middle)} ${low}V${high}M${at(middle - 4)} ${low}h8M${at(middle - 4)} ${high}h8` : '';
  return markup`<path class="bar b-${kind}" d="${left}${right}${vertical}"/><path class="middle b-${kind}" d="M${at(x(ms.low))} ${at(level)}H${at(x(ms.high))}"/>`;
}

function marker({ name, kind, ms, cost, standardError }: Point, x: Scale, y: Scale): Markup {
  const [cx, cy] = [x(ms.median), y(cost)];
  const title = markup`<title>${name}: ${quantity(ms.median)} ms per token (${quantity(ms.min)} to ${quantity(ms.max)}), ${quantity(cost)} ± ${quantity(standardError)}</title>`;
  if (kind !== 'sequential')
    return markup`<circle class="m-${kind}" cx="${at(cx)}" cy="${at(cy)}" r="${RADIUS}">${title}</circle>`;
  return markup`<path class="m-sequential" d="M${at(cx)} ${at(cy - RADIUS - 2)}l${RADIUS + 2} ${RADIUS + 2}l${-RADIUS - 2} ${RADIUS + 2}l${-RADIUS - 2} ${-RADIUS - 2}z">${title}</path>`;
}
