import { MAX_GROUP, type SearchSpace, type StageRange } from './grouping.js';

/** What a group is thought to cost, nats or any other unit that adds up; a layer alone costs nothing. */
export type GroupCost = (group: StageRange) => number;

/**
 * The cheapest partition of the layers behind the guard into every possible number of stages, when costs of groups add
 * up: dynamic programming over (layers, stages), O(layers² · MAX_GROUP).
 *
 * @returns sizes per stage as in `Grouping`, fewest stages first; of equal costs the one whose last stages are
 * smaller. A number of stages that only infinite costs reach is left out.
 */
export function cheapestPartitions({ layers, guard }: SearchSpace, cost: GroupCost): number[][] {
  const count = layers - guard;
  // The least cost of the first n layers in s stages, and the size of the last stage that gives it.
  const least = Array.from({ length: count + 1 }, () => new Float64Array(count + 1).fill(Infinity));
  const last = Array.from({ length: count + 1 }, () => new Uint8Array(count + 1));
  least[0]![0] = 0;
  for (let n = 1; n <= count; n++) {
    for (let size = 1; size <= Math.min(MAX_GROUP, n); size++) {
      const own = size === 1 ? 0 : cost({ first: guard + n - size, size });
      for (let stages = 1; stages <= n; stages++) {
        const total = least[n - size]![stages - 1]! + own;
        if (total >= least[n]![stages]!) continue;
        least[n]![stages] = total;
        last[n]![stages] = size;
      }
    }
  }
  const partitions: number[][] = [];
  for (let stages = 1; stages <= count; stages++) {
    if (least[count]![stages] === Infinity) continue;
    const sizes: number[] = [];
    for (let [n, s] = [count, stages]; n > 0; s--) {
      const size = last[n]![s]!;
      sizes.unshift(size);
      n -= size;
    }
    partitions.push(sizes);
  }
  return partitions;
}
