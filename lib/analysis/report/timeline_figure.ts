import type { Plan } from '../../plan/plan.js';
import type { TimelineSpan } from '../../engine/timeline.js';
import { drawing, figure, legend } from './figure.js';
import { at, count, decimals, layerRange } from './format.js';
import { markup, type Content, type Markup } from './markup.js';
import { PHASE_COLOURS } from './palette.js';
import type { ReportData, TracedToken } from './report_data.js';
import { linearScale, tickDigits, ticks, type Scale } from './scale.js';

/** Threads drawn at most of each token; the tables and the trace file have all. */
const MOST_THREADS = 8;
const WIDTH = 1034;
const LEFT = 66;
const HEADER = 24;
const AXIS = 30;
const GAP = 16;
/** Pixels of a figure of average width per character of a label in it. */
const CHARACTER_WIDTH = 6.3;

/** Part of a traced token: its spans between two times, in nanoseconds. */
interface Excerpt {
  token: TracedToken;
  spans: readonly TimelineSpan[];
  from: number;
  to: number;
  words: string;
}

/** Whole tokens above one another, on one scale of time. */
export function timelineFigure({ traces, traced }: Pick<ReportData, 'traces' | 'traced'>): Markup {
  const excerpts = traces.map((token): Excerpt => {
    const { spans, durationNs } = token.timeline;
    return { token, spans, from: 0, to: durationNs, words: microseconds(durationNs) };
  });
  return figure(
    [phaseLegend(), draw('timeline', 'One token, phase by phase', excerpts, 26, false)],
    markup`<b>One token, phase by phase.</b> Not a sketch: the token at position ${traced.position}, the one with the median duration of ${traced.repeats}, traced in the engine. One row per thread; a block that fills the row works on all layers of the stage, one that fills part of it on its own lane. Gaps are waits for the other threads.`,
  );
}

/** The layers of a plan's first group, sequential and grouped, on one scale of time. */
export function closeUpFigure({ traces }: Pick<ReportData, 'traces'>, plan: Plan): Markup | undefined {
  const group = plan.groups[0];
  const excerpts = group
    ? traces.map((token) => excerptOf(token, group)).filter((excerpt) => excerpt !== undefined)
    : [];
  if (!group || excerpts.length < 2) return undefined;
  return figure(
    draw('close-up', `${layerRange(group)} at close range`, excerpts, 40, true),
    markup`<b>The same token, ${layerRange(group)} only.</b> Sequential, these are ${5 * group.length} dependent phases; as a group they are 5, each for all of the layers at once.`,
  );
}

function excerptOf(token: TracedToken, layers: readonly number[]): Excerpt | undefined {
  const spans = token.timeline.spans.filter((span) => span.layers.some((layer) => layers.includes(layer)));
  if (spans.length === 0) return undefined;
  const [from, to] = [Math.min(...spans.map(({ beginNs }) => beginNs)), Math.max(...spans.map(({ endNs }) => endNs))];
  const phases = new Set(spans.map(({ phase }) => phase)).size;
  return { token, spans, from, to, words: `${count(phases, 'phase')}, ${microseconds(to - from)}` };
}

function draw(id: string, title: string, excerpts: readonly Excerpt[], rowHeight: number, labelled: boolean): Markup {
  const longest = Math.max(...excerpts.map(({ from, to }) => to - from));
  const x = linearScale([0, longest], [LEFT, WIDTH - 8]);
  let top = 0;
  const parts = excerpts.map((excerpt) => {
    const y = top;
    top += HEADER + threadsOf(excerpt).length * rowHeight + GAP;
    return rows(excerpt, y, rowHeight, x, labelled);
  });
  const description = excerpts.map(({ token, words }) => `${token.name}: ${words}.`).join(' ');
  return drawing({
    id,
    title,
    description,
    width: WIDTH,
    height: top + AXIS,
    body: [timeAxis(x, longest, top), parts],
    scrolls: true,
  });
}

function rows(excerpt: Excerpt, top: number, height: number, x: Scale, labelled: boolean): Markup {
  const { token, spans, from, words } = excerpt;
  const threads = threadsOf(excerpt);
  const hidden = token.timeline.threads - threads.length;
  const lanes = Math.max(1, ...token.timeline.spans.map(({ lane = 0 }) => lane + 1));
  const rowTop = (thread: number): number => top + HEADER + threads.indexOf(thread) * height;
  return markup`<text class="label" x="0" y="${top + 15}">${token.name}<tspan class="soft" dx="10">${words}${hidden > 0 && `, ${hidden} more threads not drawn`}</tspan></text>
${threads.map((thread) => markup`<text class="tick" x="0" y="${at(rowTop(thread) + height / 2 + 3)}">thread ${thread}</text><path class="grid" d="M${LEFT} ${at(rowTop(thread) + height - 1)}H${WIDTH - 8}"/>`)}
${spans.filter(({ thread }) => threads.includes(thread)).map((span) => block(span, rowTop(span.thread), height - 3, lanes, (ns) => x(ns - from), labelled))}`;
}

function block(span: TimelineSpan, top: number, height: number, lanes: number, x: Scale, labelled: boolean): Markup {
  const { kind, lane, layers, beginNs, endNs, thread, stage } = span;
  const [left, width] = [x(beginNs), Math.max(0.4, x(endNs) - x(beginNs))];
  const part =
    lane === undefined ? { y: top, height } : { y: top + (lane * height) / lanes, height: height / lanes - 1 };
  const where = stage < 0 ? '' : `, stage ${stage}, ${layerRange(layers)}${lane === undefined ? '' : `, lane ${lane}`}`;
  const short = lane === undefined ? kind : `${kind} ${layers[0]}`;
  const label: Content =
    labelled &&
    short.length * CHARACTER_WIDTH < width - 4 &&
    part.height >= 12 &&
    markup`<text class="on-${kind}" x="${at(left + width / 2)}" y="${at(part.y + part.height / 2 + 3.5)}" text-anchor="middle">${short}</text>`;
  return markup`<rect class="k-${kind}" x="${at(left)}" y="${at(part.y)}" width="${at(width)}" height="${at(part.height)}"><title>${kind}${where}, thread ${thread}: ${microseconds(endNs - beginNs)}, from ${microseconds(beginNs)}</title></rect>${label}`;
}

function threadsOf({ spans }: Excerpt): number[] {
  return [...new Set(spans.map(({ thread }) => thread))].sort((a, b) => a - b).slice(0, MOST_THREADS);
}

function timeAxis(x: Scale, longest: number, bottom: number): Markup {
  const values = ticks(0, longest / 1000, 10);
  return markup`${values.map((us) => markup`<path class="grid" d="M${at(x(us * 1000))} 0V${bottom}"/><text class="tick" x="${at(x(us * 1000))}" y="${bottom + 14}" text-anchor="middle">${decimals(us, tickDigits(values))}</text>`)}
<text class="axis" x="${WIDTH - 8}" y="${bottom + 28}" text-anchor="end">microseconds →</text>`;
}

function phaseLegend(): Markup {
  return legend(PHASE_COLOURS.map(([kind]) => [`k-${kind}`, kind] as const));
}

function microseconds(ns: number): string {
  return `${decimals(ns / 1000, ns < 100_000 ? 1 : 0)} µs`;
}
