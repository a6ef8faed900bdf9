import { mulberry32 } from '../eval/statistics.js';
import type { Plan } from '../../plan/plan.js';
import { groupingOf, type Grouping, type SearchSpace, type StageRange } from './grouping.js';
import { measuredCost, possibleGroups } from './group_costs.js';
import { localSearch } from './local_search.js';
import { cheapestPartitions, type GroupCost } from './partition.js';
import { Trials, type Budget, type Measure, type Trial } from './trials.js';
import { shuffled, uniformGroupings } from './uniform.js';

export interface SearchOptions extends Budget {
  space: SearchSpace;
  /** What sharing inputs is thought to cost before anything was measured. */
  similarity: GroupCost;
  seed: number;
  /** See `LocalSearchOptions`. */
  focus: (best: ReadonlyMap<number, Trial>) => number;
  /** Plans of which the best is wanted too, whatever its number of stages. */
  wanted?: (plan: Plan) => boolean;
}

export interface SearchOutcome {
  /**
   * The grouping with the least KL for each number of stages, and the best of the paper's plans; fewest stages first.
   * Last, the best of those wanted.
   */
  found: Array<{ best: Trial; uniform?: Trial }>;
  /** Plans measured. */
  evaluations: number;
  /** Whether the search ended by itself: then a larger budget finds the same. */
  complete: boolean;
}

/** The share of the budget that is spent when each method has had its turn; local search has the rest. */
const SHARES = { similarity: 0.15, uniform: 0.4, groups: 0.7 };

/**
 * Looks for the plans with the least KL at every number of stages, by four methods:
 *
 * 1. similarity: partitions whose groups have the most similar inputs; they also say which bypass distance, 0 or 1, the
 * next two use; 2. uniform: the paper's plans, in an order that is drawn;
 * 3. group costs: every group measured alone, and partitions whose measured costs have the least sum; 4. local search
 * from the best of these.
 *
 * Equal `seed` and number of `evaluations` give the same outcome; a limit in time does not.
 */
export async function searchPlans(
  measure: Measure,
  { space, similarity, seed, focus, wanted, ...budget }: SearchOptions,
): Promise<SearchOutcome> {
  const random = mulberry32(seed);
  const trials = new Trials(space, measure, budget);

  const alike = shuffled(cheapestPartitions(space, similarity), random);
  await trials.run(
    alike.flatMap((sizes) => [0, 1].map((bypass) => ({ sizes, bypass }))),
    'similarity',
    SHARES.similarity,
  );
  const bypass = betterBypass(trials, alike);

  await trials.run(uniformGroupings(space, bypass, random), 'uniform', SHARES.uniform);
  // The baseline may choose its bypass distance too.
  await trials.run(
    [...trials.bestUniform.values()].map(({ grouping }) => ({ ...grouping, bypass: 1 - grouping.bypass })),
    'uniform',
    SHARES.uniform,
  );

  const alone = (group: StageRange): Grouping => groupingOf(space, [group], bypass);
  await trials.run(possibleGroups(space).map(alone), 'group costs', SHARES.groups);
  const cost = measuredCost(space, similarity, (group) => trials.get(alone(group))?.quality.kl);
  await trials.run(
    cheapestPartitions(space, cost).map((sizes) => ({ sizes, bypass })),
    'group costs',
  );

  const complete = await localSearch(trials, space, cost, { random, focus });
  const found: SearchOutcome['found'] = [...trials.best]
    .sort(([a], [b]) => a - b)
    .map(([stages, best]) => ({ best, uniform: trials.bestUniform.get(stages) }));
  const special = wanted && trials.bestOf(wanted);
  if (special) found.push({ best: special });
  return { found, evaluations: trials.count, complete };
}

/** The bypass distance with the smaller geometric mean of KLs, over partitions measured with both. */
function betterBypass(trials: Trials, partitions: readonly number[][]): number {
  let sum = 0;
  for (const sizes of partitions) {
    const [without, bypassed] = [trials.get({ sizes, bypass: 0 }), trials.get({ sizes, bypass: 1 })];
    if (without && bypassed)
      sum += Math.log((bypassed.quality.kl + Number.MIN_VALUE) / (without.quality.kl + Number.MIN_VALUE));
  }
  return sum < 0 ? 1 : 0;
}
