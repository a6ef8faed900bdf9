import { CqilError } from '../../errors.js';
import type { Plan } from '../../plan/plan.js';
import type { SearchSpace } from './grouping.js';
import type { Trial } from './trials.js';

/**
 * What a search is to find: the plan with the fewest phases whose cost is bounded, or the best one with few enough
 * phases, or fast enough.
 *
 * - `kl`: mean KL from sequential of at most `limit` nats per token.
 * - `perplexity`: perplexity at most `limit` (a fraction) above that of sequential.
 * - `phases`: phases at least `limit` (a fraction) below those of sequential.
 * - `time`: predicted time per token at least `limit` (a fraction) below that of sequential.
 */
export interface Goal {
  kind: 'kl' | 'perplexity' | 'phases' | 'time';
  limit: number;
}

/** What goals look at in a plan. */
export interface GoalPoint {
  phases: number;
  kl: number;
  perplexity: number;
  /** Predicted; needed by goals in time. */
  msPerToken?: number;
}

/** The point that meets the goal best, or undefined when none meets it. `sequential` has a KL of 0. */
export function bestFor<T extends GoalPoint>(goal: Goal, points: readonly T[], sequential: GoalPoint): T | undefined {
  const saves = goal.kind === 'phases' || goal.kind === 'time';
  const meeting = points.filter(
    (point) => measureFor(goal, point, sequential) <= goal.limit * (saves ? -1 : 1) + ROUNDING,
  );
  return saves ? least(meeting, byKl) : least(meeting, byPhases);
}

/** Says that no point meets the goal, and which comes nearest. */
export function unreachable(goal: Goal, points: readonly GoalPoint[], sequential: GoalPoint): CqilError {
  const nearest = least(
    points,
    (a, b) => measureFor(goal, a, sequential) - measureFor(goal, b, sequential) || byKl(a, b),
  );
  const found = nearest
    ? `the nearest has ${nearest.phases} phases instead of ${sequential.phases} ` +
      `(${percent(1 - nearest.phases / sequential.phases)} fewer), ${timeOf(nearest, sequential)}KL ` +
      `${nearest.kl.toPrecision(3)} and perplexity ${nearest.perplexity.toFixed(3)} ` +
      `(${percent(nearest.perplexity / sequential.perplexity - 1)} more)`
    : 'the budget ended before one was measured';
  return new CqilError('GOAL_UNREACHABLE', `No plan was found with ${describeGoal(goal)}: ${found}.`);
}

export function describeGoal({ kind, limit }: Goal): string {
  if (kind === 'kl') return `a KL of at most ${limit} nats per token`;
  if (kind === 'perplexity') return `a perplexity at most ${percent(limit)} above sequential`;
  return kind === 'phases'
    ? `at least ${percent(limit)} fewer phases`
    : `at least ${percent(limit)} less predicted time per token`;
}

function timeOf(point: GoalPoint, sequential: GoalPoint): string {
  if (point.msPerToken === undefined || sequential.msPerToken === undefined) return '';
  return (
    `a predicted ${point.msPerToken.toPrecision(3)} ms per token instead of ` +
    `${sequential.msPerToken.toPrecision(3)} (${percent(1 - point.msPerToken / sequential.msPerToken)} less), `
  );
}

/** Fractions such as 1 − 60 / 80 come out a few units in the last place off. */
const ROUNDING = 1e-12;

/** What the goal bounds from above. */
function measureFor({ kind }: Goal, { phases, kl, perplexity, msPerToken }: GoalPoint, sequential: GoalPoint): number {
  if (kind === 'kl') return kl;
  if (kind === 'time') return msPerToken! / sequential.msPerToken! - 1;
  return kind === 'perplexity' ? perplexity / sequential.perplexity - 1 : phases / sequential.phases - 1;
}

function byKl(a: GoalPoint, b: GoalPoint): number {
  return a.kl - b.kl || a.phases - b.phases;
}

function byPhases(a: GoalPoint, b: GoalPoint): number {
  return a.phases - b.phases || a.kl - b.kl;
}

function least<T>(items: readonly T[], compare: (a: T, b: T) => number): T | undefined {
  return items.toSorted(compare)[0];
}

function percent(fraction: number): string {
  return `${Number((fraction * 100).toFixed(2))} %`;
}

/**
 * The number of stages behind the guard that decides whether the goal is met: the most a goal in phases allows, the
 * most that are fast enough, or the fewest that keep to a bound on quality so far. Perplexity is exp of the mean
 * negative log-likelihood, which a plan raises by about its KL.
 *
 * @param fastEnough needed by goals in time.
 */
export function decidingStages(
  { kind, limit }: Goal,
  { layers, guard }: SearchSpace,
  best: ReadonlyMap<number, Trial>,
  fastEnough?: (plan: Plan) => boolean,
): number {
  if (kind === 'phases') return Math.floor(layers * (1 - limit) + ROUNDING) - guard;
  if (kind === 'time')
    return Math.max(1, ...[...best].filter(([, { plan }]) => fastEnough!(plan)).map(([stages]) => stages));
  const kl = kind === 'kl' ? limit : Math.log1p(limit);
  const meeting = [...best].filter(([, { quality }]) => quality.kl <= kl).map(([stages]) => stages);
  return Math.min(layers - guard, ...meeting);
}
