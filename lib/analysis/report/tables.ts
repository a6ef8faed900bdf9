import type { PhaseKind } from '../../engine/native.js';
import { table } from './figure.js';
import { decimals, percent, quantity, signedPercent, whole } from './format.js';
import { markup, type Content, type Markup } from './markup.js';
import { PHASE_COLOURS } from './palette.js';
import type { ReportData, SearchedFront, Spread, TracedToken } from './report_data.js';

/** What was measured of each plan. */
export function plansTable({
  rows,
  front,
  text,
  timing,
}: Pick<ReportData, 'rows' | 'front' | 'text' | 'timing'>): Markup[] {
  const cells = rows.map(({ name, lossy, phases, msPerToken, change, quality }, i): Content[] => [
    name,
    markup`<span class="badge ${lossy ? 'lossy' : 'lossless'}">${lossy ? 'lossy' : 'lossless'}</span>`,
    phases,
    timeWords(msPerToken),
    i === 0 ? '' : changeWords(change),
    plusMinus(quality.perplexity, quality.perplexityStandardError, 3),
    quality.kl.mean === 0 ? '0' : plusMinus(quality.kl.mean, quality.kl.standardError, 4),
    quality.kl.p99 === 0 ? '0' : decimals(quality.kl.p99, 4),
    percent(quality.topAgreement),
  ]);
  const header = [
    'plan',
    '',
    'phases',
    'ms per token (fastest – slowest round)',
    'change (middle half of the rounds)',
    'perplexity',
    'KL, nats',
    'KL p99',
    'same top',
  ];
  const measured = table(
    'plans-table',
    `Each plan: ${timing.rounds} interleaved rounds of ${timing.tokens} tokens; ${whole(rows[0]!.quality.tokens)} ` +
      `scored tokens of ${text.name}, windows of ${text.window}`,
    header,
    cells,
  );
  return front && front.plans.length > 0 ? [measured, frontTable(front)] : [measured];
}

/** What a search found, timed here. */
function frontTable(front: SearchedFront): Markup {
  const searched = front.plans.map(
    ({ name, method, phases, msPerToken, change, kl, klStandardError, perplexity }): Content[] => [
      name,
      phases,
      timeWords(msPerToken),
      changeWords(change),
      plusMinus(kl, klStandardError, 4),
      decimals(perplexity, 3),
      method,
    ],
  );
  const caption =
    `The front of the search in ${front.file}: KL and perplexity on ${whole(front.tokens)} held-out ` +
    `tokens of ${front.text} (${front.sha256}), not those above; time measured here`;
  const header = [
    'plan',
    'phases',
    'ms per token (fastest – slowest round)',
    'change (middle half of the rounds)',
    'KL, nats',
    'perplexity',
    'found by',
  ];
  return table('front-table', caption, header, searched);
}

/** Where the time of the traced tokens went: of each kind of phase, the mean over threads. */
export function phasesTable(traces: readonly TracedToken[]): Markup {
  const columns = traces.map(({ timeline }) => {
    const busy = new Map<PhaseKind, number>();
    for (const { kind, beginNs, endNs } of timeline.spans)
      busy.set(kind, (busy.get(kind) ?? 0) + (endNs - beginNs) / timeline.threads);
    return {
      busy,
      total: timeline.durationNs,
      waiting: timeline.durationNs - [...busy.values()].reduce((sum, ns) => sum + ns, 0),
    };
  });
  const cell = (ns: number, total: number): string => `${decimals(ns / 1000, 1)} (${percent(ns / total, 0)})`;
  const rows: Content[][] = PHASE_COLOURS.map(([kind]) => [
    kind,
    ...columns.map(({ busy, total }) => cell(busy.get(kind) ?? 0, total)),
  ]);
  rows.push(
    ['waiting', ...columns.map(({ waiting, total }) => cell(waiting, total))],
    ['the token', ...columns.map(({ total }) => decimals(total / 1000, 1))],
  );
  return table(
    'phases-table',
    'Microseconds of the traced tokens by kind of phase, mean over threads',
    ['phase', ...traces.map(({ name }) => name)],
    rows,
  );
}

function timeWords({ min, median, max }: Spread): string {
  return `${quantity(median)} (${quantity(min)} – ${quantity(max)})`;
}

function changeWords({ low, median, high }: Spread): string {
  return `${signedPercent(median)} (${decimals(low * 100, 1)} … ${decimals(high * 100, 1)})`;
}

function plusMinus(value: number, error: number, digits: number): string {
  return `${decimals(value, digits)} ± ${decimals(error, digits)}`;
}
