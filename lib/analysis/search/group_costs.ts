import { MAX_GROUP, type SearchSpace, type StageRange } from './grouping.js';
import type { GroupCost } from './partition.js';

/**
 * How unlike the input a group shares is to the inputs its members would have: Σ over members of 1 − cosine.
 *
 * @param inputCosine [nLayers][nLayers], cosine of the inputs of every two layers.
 */
export function similarityCost(inputCosine: readonly (readonly number[])[]): GroupCost {
  return ({ first, size }) => {
    let sum = 0;
    for (let layer = first + 1; layer < first + size; layer++) sum += Math.max(0, 1 - inputCosine[first]![layer]!);
    return sum;
  };
}

/**
 * Costs of groups as measured one by one; of a group that was not, the guess, brought to the scale of those that were.
 */
export function measuredCost(
  space: SearchSpace,
  guess: GroupCost,
  measured: (group: StageRange) => number | undefined,
): GroupCost {
  let [guesses, measurements] = [0, 0];
  for (const group of possibleGroups(space)) {
    const kl = measured(group);
    if (kl === undefined) continue;
    guesses += guess(group);
    measurements += kl;
  }
  const scale = guesses > 0 && measurements > 0 ? measurements / guesses : 1;
  return (group) => measured(group) ?? guess(group) * scale;
}

/** Every group of a space, pairs first. */
export function possibleGroups({ layers, guard }: SearchSpace): StageRange[] {
  const groups: StageRange[] = [];
  for (let size = 2; size <= MAX_GROUP; size++) {
    for (let first = guard; first + size <= layers; first++) groups.push({ first, size });
  }
  return groups;
}
