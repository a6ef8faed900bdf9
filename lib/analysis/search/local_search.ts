import { stageRanges, type Grouping, type SearchSpace } from './grouping.js';
import { neighbours } from './neighbours.js';
import type { GroupCost } from './partition.js';
import type { Trial, Trials } from './trials.js';
import { shuffled } from './uniform.js';

/** Measured per round: the most promising neighbours, and some drawn at random, because the promise is a guess. */
const PROMISING = 6;
const RANDOM = 2;
/** Groupings of each number of stages whose neighbours are looked at. */
const WIDTH = 3;

export interface LocalSearchOptions {
  /** Uniform numbers in [0, 1). */
  random: () => number;
  /** The number of stages, counted behind the guard, that matters most, given what was found so far. */
  focus: (best: ReadonlyMap<number, Trial>) => number;
}

interface Prospect {
  grouping: Grouping;
  /** KL the grouping is expected to have, nats. */
  expected: number;
}

/**
 * Improves the best groupings of every number of stages by measuring what one move makes of them, until the budget is
 * spent or every neighbour of them has been measured.
 *
 * The KL of a neighbour is expected to be to that of the grouping as the sums of their groups' costs are. Those go
 * first whose expected KL is least, relative to the best known for the same number of stages; numbers of stages far
 * from the focus wait.
 *
 * @returns whether it ended before the budget did.
 */
export async function localSearch(
  trials: Trials,
  space: SearchSpace,
  cost: GroupCost,
  { random, focus }: LocalSearchOptions,
): Promise<boolean> {
  const total = (sizes: readonly number[]): number =>
    stageRanges(space, sizes).reduce((sum, range) => sum + (range.size > 1 ? cost(range) : 0), 0);
  const around = new Map<Trial, Prospect[]>();
  const prospectsOf = (trial: Trial): Prospect[] => {
    const base = total(trial.grouping.sizes);
    const scale = base > 0 ? trial.quality.kl / base : 1;
    return neighbours(trial.grouping).map((grouping) => ({ grouping, expected: total(grouping.sizes) * scale }));
  };
  for (;;) {
    const center = focus(trials.best);
    const score = ({ grouping: { sizes }, expected }: Prospect): number =>
      (expected / Math.max(trials.best.get(sizes.length)?.quality.kl ?? Infinity, Number.MIN_VALUE)) *
      (1 + Math.abs(sizes.length - center) / space.layers);
    const open: Array<{ prospect: Prospect; score: number }> = [];
    for (const trial of trials.leaders(WIDTH)) {
      const fresh = (around.get(trial) ?? prospectsOf(trial)).filter(
        ({ grouping }) => !trials.get(grouping) && grouping.sizes.some((size) => size > 1),
      );
      around.set(trial, fresh);
      for (const prospect of fresh) open.push({ prospect, score: score(prospect) });
    }
    if (open.length === 0) return trials.spent < 1;
    const ranked = open.sort((a, b) => a.score - b.score).map(({ prospect: { grouping } }) => grouping);
    const drawn = shuffled(ranked.slice(PROMISING), random).slice(0, RANDOM);
    if (!(await trials.run([...ranked.slice(0, PROMISING), ...drawn], 'local search'))) return false;
  }
}
