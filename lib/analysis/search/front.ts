import { countStages, type Plan } from '../../plan/plan.js';
import { PHASES_PER_STAGE } from '../../plan/plan_diagram.js';
import type { GoalPoint } from './goal.js';
import { PLANS_AT_ONCE, type PlanMeter } from './plan_meter.js';
import type { Quality } from './quality.js';
import type { SearchOutcome } from './search_plans.js';
import type { Method, Trial } from './trials.js';

/** A plan, and what it costs on text it was not chosen by. */
export interface MeasuredPlan extends Quality, GoalPoint {
  plan: Plan;
  method: Method;
  /** KL on the text it was chosen by. */
  fitKl: number;
}

/** The best plan with some number of phases, and the best of the paper's plans with as many. */
export interface SearchPoint extends MeasuredPlan {
  uniform?: MeasuredPlan;
}

/** Dependent phases inside layers: 5 per stage. */
export function countPhases(plan: Plan): number {
  return countStages(plan) * PHASES_PER_STAGE;
}

/**
 * Measures what a search found on the held-out part. Where the best plan of a number of stages turns out worse there
 * than the best of the paper's, the paper's takes its place.
 *
 * @returns fewest phases first. Rejects with ABORTED.
 */
export async function measureFound(
  { found }: SearchOutcome,
  meter: Pick<PlanMeter, 'measure'>,
  options: { signal?: AbortSignal; onProgress?: (share: number) => void } = {},
): Promise<SearchPoint[]> {
  const trials = [...new Set(found.flatMap(({ best, uniform }) => (uniform ? [best, uniform] : [best])))];
  const measured = new Map<Trial, MeasuredPlan>();
  for (let from = 0; from < trials.length; from += PLANS_AT_ONCE) {
    const chunk = trials.slice(from, from + PLANS_AT_ONCE);
    const qualities = await meter.measure(
      chunk.map(({ plan }) => plan),
      options.signal,
    );
    for (const [i, { plan, method, quality }] of chunk.entries()) {
      measured.set(chunk[i]!, { ...qualities[i]!, plan, method, phases: countPhases(plan), fitKl: quality.kl });
    }
    options.onProgress?.((from + chunk.length) / trials.length);
  }
  const points = found.map(({ best, uniform }) => {
    const baseline = uniform && measured.get(uniform)!;
    const own = measured.get(best)!;
    return { ...(baseline && baseline.kl < own.kl ? baseline : own), uniform: baseline };
  });
  // What was wanted for itself may be the best of its number of stages too.
  return points.filter(({ plan }, i) => points.findIndex((other) => other.plan === plan) === i);
}

/** The points that no point with as few phases or fewer is as good as, fewest phases first. */
export function paretoFront<T extends GoalPoint>(points: readonly T[]): T[] {
  const front: T[] = [];
  for (const point of points.toSorted((a, b) => a.phases - b.phases || a.kl - b.kl)) {
    if (front.length === 0 || point.kl < front.at(-1)!.kl) front.push(point);
  }
  return front;
}
