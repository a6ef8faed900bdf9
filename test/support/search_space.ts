import { MAX_GROUP, stageRanges, type SearchSpace } from '../../lib/analysis/search/grouping.js';
import type { GroupCost } from '../../lib/analysis/search/partition.js';
import { randomUniform, seedOf } from './random.js';

/** Every way to cut `count` layers into stages of 1 to MAX_GROUP. */
export function allSizes(count: number): number[][] {
  if (count === 0) return [[]];
  const found: number[][] = [];
  for (let size = 1; size <= Math.min(MAX_GROUP, count); size++) {
    for (const rest of allSizes(count - size)) found.push([size, ...rest]);
  }
  return found;
}

/** A cost in [0, 1) per layer beyond the first for every group, always the same for a seed. */
export function randomCost(seed: number): GroupCost {
  return ({ first, size }) => (size - 1) * randomUniform(seedOf(seed, `${first} ${size}`))();
}

/** Sum of the costs of the groups of a partition. */
export function sumOf(space: SearchSpace, sizes: readonly number[], cost: GroupCost): number {
  return stageRanges(space, sizes).reduce((sum, group) => sum + (group.size > 1 ? cost(group) : 0), 0);
}
