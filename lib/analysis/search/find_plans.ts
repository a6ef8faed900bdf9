import { CqilError } from '../../errors.js';
import { counted } from '../../util/count.js';
import { modelWindows } from '../eval/perplexity.js';
import type { Window } from '../eval/windows.js';
import { measureSimilarity } from '../similarity/measure_similarity.js';
import type { Model } from '../../model/model.js';
import { resolvePlan, type Plan } from '../../plan/plan.js';
import { countPhases, measureFound, paretoFront, type SearchPoint } from './front.js';
import { decidingStages, type Goal, type GoalPoint } from './goal.js';
import { similarityCost } from './group_costs.js';
import { measureGuard, type PairCost } from './guard.js';
import type { MeasurementFile } from './measurement_file.js';
import { PlanMeter } from './plan_meter.js';
import { searchPlans } from './search_plans.js';

/** Half of these choose plans, half measure them. */
const LEAST_TOKENS = 64;
/** The share of its time that a search may take before it measures what it found on the held-out part. */
const SEARCH_SHARE = 0.85;
/** Longer windows than this cost more than they tell about a plan. */
const LONGEST_WINDOW = 512;

export interface FindOptions {
  goal: Goal;
  /**
   * Layers at the start that always run alone. Default: those that measurements of pairs single out, see
   * `measureGuard`.
   */
  guard?: number;
  seed: number;
  /** Tokens per window. Default: half of the text, the model's context length or 512, whichever is least. */
  window?: number;
  /** Plans measured at most. Default: no limit. */
  evaluations?: number;
  /** About how long it may take. Default: no limit. */
  seconds?: number;
  /** Predicted milliseconds per token of a plan; needed by goals in time, and told of every plan that is found. */
  msPerToken?: (plan: Plan) => number;
  /** Where measurements are kept, and taken from when they were made before. */
  file?: MeasurementFile;
  signal?: AbortSignal;
  /** Told how far each part of the work is, 0 to 1. */
  onProgress?: (what: 'similarity' | 'search' | 'held out', share: number) => void;
}

export interface FoundPlans {
  /** The best plan of each number of phases that was reached, measured on the held-out part; fewest phases first. */
  points: SearchPoint[];
  /** The points that no other is better than. */
  front: SearchPoint[];
  sequential: GoalPoint & { plan: Plan };
  /** Layers left alone at the start, and the pairs that decided it, where it was not given. */
  guard: number;
  guardPairs?: PairCost[];
  /** Plans measured on the fitting part. */
  evaluations: number;
  /** Whether the search ended by itself rather than with its budget. */
  complete: boolean;
  window: number;
  /** Tokens scored in each part. */
  fitTokens: number;
  heldOutTokens: number;
}

/** Tokens per window of a search over `tokens` tokens, unless it is given. */
export function searchWindow(model: Pick<Model, 'config'>, tokens: number): number {
  return Math.min(Math.floor(tokens / 2), model.config.contextLength, LONGEST_WINDOW);
}

/**
 * Looks for plans of a model that change its predictions on a text the least. The first half of the tokens chooses
 * them, the second half measures them.
 *
 * @throws CqilError INVALID_ARGUMENT for fewer than LEAST_TOKENS tokens, a window the model cannot hold, a guard that
 * leaves nothing to group, or a goal in time without `msPerToken`; NOT_FINITE for values that are infinite or not
 * numbers; ABORTED; DISPOSED.
 */
export async function findPlans(model: Model, ids: readonly number[], options: FindOptions): Promise<FoundPlans> {
  const { goal, seed, evaluations, seconds = Infinity, msPerToken, file, signal, onProgress } = options;
  const layers = model.config.nLayers;
  expectSearchable(ids.length, layers, options);
  const start = performance.now();
  const window = options.window ?? searchWindow(model, ids.length);
  const half = Math.ceil(ids.length / 2);
  const fit = modelWindows(model, ids.slice(0, half), window, 'gptq');
  const heldOut = modelWindows(model, ids.slice(half), window, 'gptq');
  const ofSimilarity = (done: number, total: number): void => onProgress?.('similarity', done / total);
  const similarity = await measureSimilarity(model, ids.slice(0, half), { signal, onProgress: ofSimilarity });

  const fitMeter = new PlanMeter(model, 'fit', fit, file);
  const found = options.guard === undefined ? await measureGuard(layers, fitMeter, signal) : undefined;
  const { guard = options.guard!, pairs } = found ?? {};
  const space = { layers, guard };
  const sequential = resolvePlan('sequential', layers);
  const fastEnough = goal.kind === 'time' ? fasterBy(goal.limit, sequential, msPerToken!) : undefined;
  const milliseconds = Math.max(0, seconds * 1000 * SEARCH_SHARE - (performance.now() - start));
  const outcome = await searchPlans((plans, stop) => fitMeter.measure(plans, stop), {
    space,
    similarity: similarityCost(similarity.inputCosine),
    seed,
    focus: (best) => decidingStages(goal, space, best, fastEnough),
    wanted: fastEnough,
    evaluations,
    milliseconds: Number.isFinite(seconds) ? milliseconds : undefined,
    signal,
    onProgress: (share) => onProgress?.('search', share),
  });
  const meter = new PlanMeter(model, 'held out', heldOut, file);
  const [baseline] = await meter.measure([sequential], signal);
  const ofHeldOut = (share: number): void => onProgress?.('held out', share);
  const measured = await measureFound(outcome, meter, { signal, onProgress: ofHeldOut });
  const timed = withTime(msPerToken);
  const points = measured
    .map(({ uniform, ...point }): SearchPoint => ({ ...timed(point), uniform: uniform && timed(uniform) }))
    .sort((a, b) => a.phases - b.phases);
  return {
    points,
    front: paretoFront(points),
    sequential: timed({ plan: sequential, phases: countPhases(sequential), kl: 0, perplexity: baseline!.perplexity }),
    guard,
    guardPairs: pairs,
    evaluations: outcome.evaluations,
    complete: outcome.complete,
    window,
    fitTokens: scored(fit),
    heldOutTokens: scored(heldOut),
  };
}

/** Adds the predicted time of its plan to a point, where time can be predicted. */
function withTime(msPerToken: FindOptions['msPerToken']): <T extends { plan: Plan }>(point: T) => T {
  return (point) => (msPerToken ? { ...point, msPerToken: msPerToken(point.plan) } : point);
}

/** Throws INVALID_ARGUMENT, as `findPlans` says. */
function expectSearchable(tokens: number, layers: number, { guard = 0, goal, msPerToken }: FindOptions): void {
  if (tokens < LEAST_TOKENS)
    throw new CqilError(
      'INVALID_ARGUMENT',
      `The text has ${counted(tokens, 'token')}, expected at least ${LEAST_TOKENS}: half choose plans, half measure ` +
        'them.',
    );
  if (guard + 2 > layers)
    throw new CqilError(
      'INVALID_ARGUMENT',
      `The model has ${layers} layers and ${guard} of them are guarded; expected at least 2 others to group.`,
    );
  if (goal.kind === 'time' && !msPerToken)
    throw new CqilError(
      'INVALID_ARGUMENT',
      'A goal in time needs msPerToken, which predicts the time of a plan: calibration(model, checkpoint) gives a ' +
        'model of it.',
    );
}

/** Whether a plan takes at least a fraction less time than sequential, up to rounding. */
function fasterBy(fraction: number, sequential: Plan, msPerToken: (plan: Plan) => number): (plan: Plan) => boolean {
  const most = msPerToken(sequential) * (1 - fraction) * (1 + 1e-12);
  return (plan) => msPerToken(plan) <= most;
}

function scored(windows: readonly Window[]): number {
  return windows.reduce((sum, { ids, firstScored }) => sum + ids.length - firstScored, 0);
}
