import type { Plan } from '../../plan/plan.js';

/** Layers of one group at most. Larger ones share an input with layers too far away to be like it. */
export const MAX_GROUP = 4;

/** The plans a search may look at: layers before `guard` always run alone. */
export interface SearchSpace {
  /** Layers of the model. */
  layers: number;
  guard: number;
}

/** A plan of a search space. */
export interface Grouping {
  /** Layers per stage, 1 to MAX_GROUP, from layer `guard` to the last; they add up to layers − guard. */
  sizes: readonly number[];
  /** Bypass distance D, mode "paper". */
  bypass: number;
}

/** Layers first … first + size − 1, sharing an input; alone when there is one. */
export interface StageRange {
  first: number;
  size: number;
}

export function stageRanges({ guard }: SearchSpace, sizes: readonly number[]): StageRange[] {
  let first = guard;
  return sizes.map((size) => {
    const range = { first, size };
    first += size;
    return range;
  });
}

export function planOf(space: SearchSpace, { sizes, bypass }: Grouping): Plan {
  const groups = stageRanges(space, sizes)
    .filter(({ size }) => size > 1)
    .map(({ first, size }) => Array.from({ length: size }, (_, i) => first + i));
  return { version: 1, layers: space.layers, groups, bypass: groups.length > 0 ? bypass : 0, bypassMode: 'paper' };
}

/** The grouping with some groups, and every other layer alone. `groups` ascend and do not overlap. */
export function groupingOf({ layers, guard }: SearchSpace, groups: readonly StageRange[], bypass: number): Grouping {
  const sizes: number[] = [];
  let next = guard;
  for (const { first, size } of groups) {
    for (; next < first; next++) sizes.push(1);
    sizes.push(size);
    next += size;
  }
  for (; next < layers; next++) sizes.push(1);
  return { sizes, bypass };
}

/** Tells groupings of one space apart. */
export function keyOf({ sizes, bypass }: Grouping): string {
  return `${sizes.join('')} ${bypass}`;
}
