import { groupingOf, keyOf, MAX_GROUP, type Grouping, type SearchSpace, type StageRange } from './grouping.js';

/**
 * The paper's plans: groups of P over a contiguous range of layers [S, E), the last one shortened, for every P, S and
 * E. The order is drawn: one plan of each number of stages, then another of each, so that any beginning of the list is
 * a fair selection.
 *
 * @param random uniform numbers in [0, 1).
 */
export function uniformGroupings(space: SearchSpace, bypass: number, random: () => number): Grouping[] {
  const byStages = new Map<number, Grouping[]>();
  const seen = new Set<string>();
  for (let size = 2; size <= MAX_GROUP; size++) {
    for (let start = space.guard; start < space.layers; start++) {
      for (let end = start + 2; end <= space.layers; end++) {
        const grouping = groupingOf(space, evenGroups(size, start, end), bypass);
        if (seen.has(keyOf(grouping))) continue;
        seen.add(keyOf(grouping));
        const { length } = grouping.sizes;
        byStages.set(length, [...(byStages.get(length) ?? []), grouping]);
      }
    }
  }
  const drawn = [...byStages.values()].map((groupings) => shuffled(groupings, random));
  const longest = Math.max(0, ...drawn.map(({ length }) => length));
  return Array.from({ length: longest }, (_, i) => drawn.flatMap((groupings) => groupings.slice(i, i + 1))).flat();
}

function evenGroups(size: number, start: number, end: number): StageRange[] {
  const groups: StageRange[] = [];
  for (let first = start; first + 1 < end; first += size) groups.push({ first, size: Math.min(size, end - first) });
  return groups;
}

/** A copy in an order that is drawn (Fisher–Yates). */
export function shuffled<T>(items: readonly T[], random: () => number): T[] {
  const copy = [...items];
  for (let i = copy.length - 1; i > 0; i--) {
    const other = Math.floor(random() * (i + 1));
    [copy[i], copy[other]] = [copy[other]!, copy[i]!];
  }
  return copy;
}
