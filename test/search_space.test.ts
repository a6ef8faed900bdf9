import { describe, expect, it } from 'vitest';
import { resolvePlan, planShorthand } from '../lib/plan/plan.js';
import {
  groupingOf,
  keyOf,
  MAX_GROUP,
  planOf,
  stageRanges,
  type Grouping,
  type SearchSpace,
} from '../lib/analysis/search/grouping.js';
import { measuredCost, possibleGroups, similarityCost } from '../lib/analysis/search/group_costs.js';
import { neighbours } from '../lib/analysis/search/neighbours.js';
import { cheapestPartitions, type GroupCost } from '../lib/analysis/search/partition.js';
import { uniformGroupings } from '../lib/analysis/search/uniform.js';
import { randomUniform } from './support/random.js';
import { allSizes, randomCost, sumOf } from './support/search_space.js';

const SPACE: SearchSpace = { layers: 11, guard: 2 };

describe('groupings', () => {
  it('are sound plans', () => {
    for (const sizes of allSizes(9)) {
      const plan = planOf(SPACE, { sizes, bypass: 1 });
      expect(resolvePlan({ ...plan }, SPACE.layers)).toEqual(plan);
      expect(
        groupingOf(
          SPACE,
          stageRanges(SPACE, sizes).filter(({ size }) => size > 1),
          1,
        ),
      ).toEqual({ sizes, bypass: 1 });
    }
    expect(planOf(SPACE, { sizes: [1, 2, 4, 1, 1], bypass: 0 }).groups).toEqual([
      [3, 4],
      [5, 6, 7, 8],
    ]);
  });

  it('possible groups are every run of 2 to 4 layers behind the guard', () => {
    const groups = possibleGroups(SPACE);
    expect(groups).toHaveLength(8 + 7 + 6);
    expect(groups.every(({ first, size }) => first >= 2 && first + size <= 11)).toBe(true);
  });
});

describe('cheapest partitions', () => {
  it.each([1, 2, 3, 4])('have the least sum of all with as many stages, seed %i', (seed) => {
    const cost = randomCost(seed);
    const found = cheapestPartitions(SPACE, cost);
    const counts = allSizes(9).map(({ length }) => length);
    expect(found.map(({ length }) => length)).toEqual([...new Set(counts)].sort((a, b) => a - b));
    for (const sizes of found) {
      const least = Math.min(
        ...allSizes(9)
          .filter(({ length }) => length === sizes.length)
          .map((other) => sumOf(SPACE, other, cost)),
      );
      expect(sumOf(SPACE, sizes, cost)).toBeCloseTo(least, 12);
    }
  });

  it('leave out what only infinite costs reach', () => {
    const pairs: GroupCost = ({ size }) => (size === 2 ? 1 : Infinity);
    expect(cheapestPartitions({ layers: 5, guard: 0 }, pairs).map(({ length }) => length)).toEqual([3, 4, 5]);
    expect(cheapestPartitions({ layers: 3, guard: 3 }, pairs)).toEqual([]);
  });
});

describe('costs', () => {
  const cosine = [
    [1, 0.9, 0.5],
    [0.9, 1, 0.8],
    [0.5, 0.8, 1],
  ];

  it("of similarity: how unlike the shared input is to each member's own", () => {
    const cost = similarityCost(cosine);
    expect(cost({ first: 0, size: 3 })).toBeCloseTo(0.1 + 0.5, 12);
    expect(cost({ first: 1, size: 2 })).toBeCloseTo(0.2, 12);
  });

  it('measured where they are, guessed to the same scale elsewhere', () => {
    const space = { layers: 3, guard: 0 };
    const cost = measuredCost(space, similarityCost(cosine), ({ first, size }) =>
      size === 2 ? [3, 6][first] : undefined,
    );
    expect(cost({ first: 1, size: 2 })).toBe(6);
    expect(cost({ first: 0, size: 3 })).toBeCloseTo(0.6 * (9 / 0.3), 9);
    expect(measuredCost(space, similarityCost(cosine), () => undefined)({ first: 0, size: 2 })).toBeCloseTo(0.1, 12);
  });
});

describe('uniform groupings', () => {
  const found = uniformGroupings(SPACE, 1, randomUniform(1));

  it('are the plans shorthand can write, each once', () => {
    const names = found.map((grouping) => planShorthand(planOf(SPACE, grouping)));
    const expected = new Set<string | undefined>();
    for (let p = 2; p <= MAX_GROUP; p++) {
      for (let s = SPACE.guard; s < SPACE.layers; s++) {
        for (let e = s + 2; e <= SPACE.layers; e++)
          expected.add(planShorthand(resolvePlan(`P${p}-D1-S${s}-E${e}`, SPACE.layers)));
      }
    }
    expect(names).not.toContain(undefined);
    expect(names.toSorted()).toEqual([...expected].toSorted());
  });

  it('come in a drawn order that has every number of stages in its beginning', () => {
    const counts = new Set(found.map(({ sizes }) => sizes.length));
    expect(new Set(found.slice(0, counts.size).map(({ sizes }) => sizes.length))).toEqual(counts);
    expect(uniformGroupings(SPACE, 1, randomUniform(1))).toEqual(found);
    expect(uniformGroupings(SPACE, 1, randomUniform(2))).not.toEqual(found);
    expect(uniformGroupings({ layers: 3, guard: 2 }, 0, randomUniform(1))).toEqual([]);
  });
});

describe('neighbours', () => {
  it('are groupings of the same layers, each once, and a move can be taken back', () => {
    for (const sizes of allSizes(7)) {
      const grouping = { sizes, bypass: 0 };
      const found = neighbours(grouping);
      const keys = found.map(keyOf);
      expect(new Set(keys).size).toBe(keys.length);
      expect(keys).not.toContain(keyOf(grouping));
      for (const other of found) {
        expect(other.sizes.reduce((sum, size) => sum + size, 0)).toBe(7);
        expect(other.sizes.every((size) => size >= 1 && size <= MAX_GROUP)).toBe(true);
        expect(neighbours(other).map(keyOf)).toContain(keyOf(grouping));
      }
    }
  });

  it('lead everywhere', () => {
    const reached = new Map<string, Grouping>();
    const waiting: Grouping[] = [{ sizes: [1, 1, 1, 1, 1, 1, 1], bypass: 0 }];
    for (let grouping = waiting.pop(); grouping; grouping = waiting.pop()) {
      if (reached.has(keyOf(grouping))) continue;
      reached.set(keyOf(grouping), grouping);
      waiting.push(...neighbours(grouping));
    }
    for (const bypass of [0, 1])
      for (const sizes of allSizes(7)) expect(sizes.length === 7 || reached.has(keyOf({ sizes, bypass }))).toBe(true);
  });
});
