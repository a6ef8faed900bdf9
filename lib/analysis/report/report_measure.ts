import { comparePlans } from '../eval/compare_plans.js';
import { modelWindows } from '../eval/perplexity.js';
import { quantile } from '../eval/statistics.js';
import { CqilError } from '../../errors.js';
import { measureSimilarity } from '../similarity/measure_similarity.js';
import type { Model } from '../../model/model.js';
import type { Execution } from '../../engine/native.js';
import { formatPlan, isLossy, type Plan } from '../../plan/plan.js';
import { planName } from './plan_name.js';
import type { PlanRow, ReportData, Speed, Spread, TracedToken } from './report_data.js';
import type { Session } from '../../session/session.js';
import type { Timeline } from '../../engine/timeline.js';
import { timeContenders, timeWatched } from '../latency/timing.js';

export interface MeasureReportOptions {
  /** Sequential first. */
  plans: readonly Plan[];
  /** Plans that are only timed. */
  timed: readonly Plan[];
  ids: readonly number[];
  /** Tokens per window. */
  window: number;
  execution: Execution;
  /** How long plans may be timed, in seconds. */
  budget: number;
  signal: AbortSignal;
  onProgress: (what: string, done: number, total: number) => void;
}

export interface MeasuredReport extends Pick<ReportData, 'similarity' | 'rows' | 'timing' | 'traces' | 'traced'> {
  /** The speeds of the plans that are only timed, in their order. */
  speeds: Speed[];
}

const PROMPT_TOKENS = 16;
const LEAST_ROUNDS = 3;
const MOST_ROUNDS = 100;
/** Tokens that are decoded in a round. */
const LEAST_TOKENS = 8;
const MOST_TOKENS = 32;
/**
 * The position of the traced token, and how often it is traced: the first times warm up, of the others the median is
 * kept.
 */
const TRACE = { position: 16, warmUp: 4, repeats: 21 };

/**
 * Measures everything a report shows. Rejects with INVALID_ARGUMENT for a window that does not fit the model or the
 * text; NOT_FINITE; ABORTED; DISPOSED.
 */
export async function measureReport(model: Model, options: MeasureReportOptions): Promise<MeasuredReport> {
  const { plans, timed, ids, window, execution, signal, onProgress } = options;
  const windows = modelWindows(model, ids, window, 'gptq');
  const progress = (what: string) => (done: number, total: number) => onProgress(what, done, total);
  const similarity = await measureSimilarity(model, ids, { signal, onProgress: progress('similarity') });
  const qualities = await comparePlans(model, plans, windows, { execution, signal, onProgress: progress('quality') });
  const { speeds, timing } = await timePlans(model, [...plans, ...timed], options);
  const traces = await tracePlans(model, plans, ids, signal, progress('tracing'));
  return {
    similarity,
    rows: plans.map((plan, i): PlanRow => ({
      plan,
      name: planName(plan),
      lossy: isLossy(plan),
      phases: model.program(plan).layerPhases,
      quality: qualities[i]!,
      ...speeds[i]!,
    })),
    speeds: speeds.slice(plans.length),
    timing,
    traces,
    traced: { position: TRACE.position, repeats: TRACE.repeats },
  };
}

/**
 * Times plans in interleaved rounds, as many as the budget has room for, the first plan being what others are compared
 * with.
 */
async function timePlans(
  model: Model,
  plans: readonly Plan[],
  { budget, execution, signal, onProgress }: MeasureReportOptions,
): Promise<{ speeds: Speed[]; timing: ReportData['timing'] }> {
  const contenders = [...new Map(plans.map((plan) => [formatPlan(plan), { plan, execution }])).values()];
  const first = await timeContenders(
    model,
    contenders,
    { promptTokens: PROMPT_TOKENS, tokens: LEAST_TOKENS, repeat: 1 },
    { signal },
  );
  // What one round over all plans takes, in milliseconds.
  const promptMs = first.reduce(
    (sum, { prefillTokensPerSecond }) => sum + (PROMPT_TOKENS / prefillTokensPerSecond) * 1000,
    0,
  );
  const tokenMs = first.reduce((sum, { msPerToken }) => sum + msPerToken.median, 0);
  const tokens = clamp(Math.floor(((budget * 1000) / LEAST_ROUNDS - promptMs) / tokenMs), LEAST_TOKENS, MOST_TOKENS);
  const rounds = clamp(Math.floor((budget * 1000) / (promptMs + tokens * tokenMs)), LEAST_ROUNDS, MOST_ROUNDS);
  const { timings, busy } = await timeWatched(
    model,
    contenders,
    { promptTokens: PROMPT_TOKENS, tokens, repeat: rounds },
    { signal, onProgress: (done, total) => onProgress('timing', done, total) },
  );
  const baseline = timings[0]!.roundMsPerToken;
  const byPlan = new Map(
    contenders.map(({ plan }, i): [string, Speed] => {
      const own = timings[i]!.roundMsPerToken;
      const changes = own.map((ms, round) => ms / baseline[round]! - 1);
      return [
        formatPlan(plan),
        {
          msPerToken: spreadOf(own),
          change: spreadOf(changes),
        },
      ];
    }),
  );
  return {
    speeds: plans.map((plan) => byPlan.get(formatPlan(plan))!),
    timing: { rounds, promptTokens: PROMPT_TOKENS, tokens, busy },
  };
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, value));
}

function spreadOf(values: readonly number[]): Spread {
  return {
    min: quantile(values, 0),
    low: quantile(values, 0.25),
    median: quantile(values, 0.5),
    high: quantile(values, 0.75),
    max: quantile(values, 1),
  };
}

/**
 * Traces one token of the sequential plan, and of the plan after it in both executions; none on a backend that keeps no
 * times.
 */
async function tracePlans(
  model: Model,
  plans: readonly Plan[],
  ids: readonly number[],
  signal: AbortSignal,
  onProgress: (done: number, total: number) => void,
): Promise<TracedToken[]> {
  const [sequential, chosen] = plans;
  const wanted: Array<{ plan: Plan; execution: 'wide' | 'lanes' }> = [{ plan: sequential!, execution: 'wide' }];
  if (chosen) wanted.push({ plan: chosen, execution: 'wide' });
  if (chosen && chosen.groups.length > 0) wanted.push({ plan: chosen, execution: 'lanes' });
  const sessions: Session[] = [];
  const kept: Timeline[][] = wanted.map(() => []);
  try {
    for (const { plan, execution } of wanted)
      sessions.push(
        model.createSession({ plan: await model.prepare(plan), execution, contextLength: TRACE.position + 1 }),
      );
    for (const session of sessions) await session.prefill(ids.slice(0, TRACE.position), { signal });
    for (let turn = -TRACE.warmUp; turn < TRACE.repeats; turn++) {
      for (const [i, session] of sessions.entries()) {
        session.truncate(TRACE.position - 1);
        // Threads that rested for long would have to be woken for the traced token, which they need not in a text.
        await session.decode(ids[TRACE.position - 1]!, { signal });
        const timeline = await session.timeline(ids[TRACE.position]!, { signal });
        if (turn >= 0) kept[i]!.push(timeline);
      }
      onProgress(turn + TRACE.warmUp + 1, TRACE.repeats + TRACE.warmUp);
    }
  } catch (error) {
    if (error instanceof CqilError && error.code === 'BACKEND_UNAVAILABLE') return [];
    throw error;
  } finally {
    for (const session of sessions) session.close();
  }
  return wanted.map(({ plan, execution }, i) => ({
    plan,
    name: plan.groups.length > 0 ? `${planName(plan)}, ${execution}` : planName(plan),
    timeline: kept[i]!.toSorted((a, b) => a.durationNs - b.durationNs)[Math.floor(TRACE.repeats / 2)]!,
  }));
}
