import { keyOf, MAX_GROUP, type Grouping } from './grouping.js';

/**
 * What one move makes of a grouping, each once and without itself:
 * - merge two adjacent stages (two layers become a pair, a group takes in the layer beside it), or split one: a stage
 *   less or more;
 * - move the boundary between two adjacent stages, or swap them: a group grows at its neighbour's cost, or shifts;
 * - a merge and a split at different places, which moves a group across the stack;
 * - the other bypass distance, 0 or 1.
 */
export function neighbours({ sizes, bypass }: Grouping): Grouping[] {
  const found = new Map<string, Grouping>();
  const add = (changed: readonly number[], distance = bypass): void => {
    const grouping = { sizes: changed, bypass: distance };
    found.set(keyOf(grouping), grouping);
  };
  const merged = merges(sizes);
  for (const changed of merged) {
    add(changed);
    for (const both of splits(changed)) add(both);
  }
  for (const changed of splits(sizes)) add(changed);
  for (let i = 0; i + 1 < sizes.length; i++) {
    const [left, right] = [sizes[i]!, sizes[i + 1]!];
    if (left > 1 && right < MAX_GROUP) add(sizes.with(i, left - 1).with(i + 1, right + 1));
    if (right > 1 && left < MAX_GROUP) add(sizes.with(i, left + 1).with(i + 1, right - 1));
    add(sizes.with(i, right).with(i + 1, left));
  }
  if (sizes.some((size) => size > 1)) add(sizes, 1 - bypass);
  found.delete(keyOf({ sizes, bypass }));
  return [...found.values()];
}

function merges(sizes: readonly number[]): number[][] {
  const changed: number[][] = [];
  for (let i = 0; i + 1 < sizes.length; i++) {
    const size = sizes[i]! + sizes[i + 1]!;
    if (size <= MAX_GROUP) changed.push(sizes.toSpliced(i, 2, size));
  }
  return changed;
}

function splits(sizes: readonly number[]): number[][] {
  return sizes.flatMap((size, i) =>
    Array.from({ length: size - 1 }, (_, cut) => sizes.toSpliced(i, 1, cut + 1, size - cut - 1)),
  );
}
