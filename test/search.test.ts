import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { CqilError } from '../lib/errors.js';
import { countStages, resolvePlan, type Plan } from '../lib/plan/plan.js';
import { measureFound, paretoFront } from '../lib/analysis/search/front.js';
import { bestFor, decidingStages, describeGoal, unreachable, type Goal } from '../lib/analysis/search/goal.js';
import { measureGuard } from '../lib/analysis/search/guard.js';
import type { Quality } from '../lib/analysis/search/quality.js';
import { searchPlans, type SearchOptions, type SearchOutcome } from '../lib/analysis/search/search_plans.js';
import type { Measure, Trial } from '../lib/analysis/search/trials.js';
import { expectRejection } from './support/expect_code.js';
import { randomUniform, seedOf } from './support/random.js';
import { allSizes, randomCost } from './support/search_space.js';
import { planOf, type SearchSpace } from '../lib/analysis/search/grouping.js';

const SPACE: SearchSpace = { layers: 12, guard: 2 };

function quality(kl: number): Quality {
  return { tokens: 10, kl, klStandardError: 0, perplexity: 10 * Math.exp(kl), topAgreement: 1 };
}

/**
 * A made-up model: groups cost what is drawn for each, more when another group stands right before, less with a bypass.
 */
function madeUpKl(plan: Plan, seed: number): number {
  const cost = randomCost(seed);
  let sum = 0;
  for (const [i, group] of plan.groups.entries()) {
    sum += 0.01 + cost({ first: group[0]!, size: group.length });
    if (plan.groups[i - 1]?.at(-1) === group[0]! - 1) sum += randomUniform(seedOf(seed, `after ${group[0]}`))();
  }
  return sum * (plan.bypass === 1 ? 0.7 : 1);
}

function madeUp(seed: number, measured: string[] = []): Measure {
  return async (plans) => {
    measured.push(...plans.map((plan) => JSON.stringify([plan.groups, plan.bypass])));
    return plans.map((plan) => quality(madeUpKl(plan, seed)));
  };
}

function options(changes: Partial<SearchOptions> = {}): SearchOptions {
  return { space: SPACE, similarity: ({ size }) => size - 1, seed: 1, focus: () => 6, ...changes };
}

function summaryOf({ found, ...rest }: SearchOutcome): unknown {
  return { ...rest, found: found.map(({ best, uniform }) => [best.plan, best.method, best.quality.kl, uniform?.plan]) };
}

describe('searchPlans', () => {
  it.each([1, 2, 3])('finds the best plan of every number of stages of a small space, seed %i', async (seed) => {
    const { found, complete, evaluations } = await searchPlans(
      madeUp(seed),
      options({ similarity: randomCost(seed + 100) }),
    );
    const all = [0, 1]
      .flatMap((bypass) => allSizes(10).map((sizes) => planOf(SPACE, { sizes, bypass })))
      .filter(({ groups }) => groups.length > 0);
    expect(complete).toBe(true);
    expect(evaluations).toBeLessThan(all.length);
    let best = 0;
    for (const {
      best: {
        plan,
        quality: { kl },
      },
      uniform,
    } of found) {
      const least = Math.min(
        ...all.filter((other) => countStages(other) === countStages(plan)).map((other) => madeUpKl(other, seed)),
      );
      expect(kl).toBe(madeUpKl(plan, seed));
      expect(kl).toBeLessThan(1.1 * least);
      if (kl === least) best++;
      if (uniform) expect(kl).toBeLessThanOrEqual(uniform.quality.kl);
    }
    expect(found.map(({ best: { plan } }) => countStages(plan))).toEqual([5, 6, 7, 8, 9, 10, 11]);
    expect(best).toBeGreaterThanOrEqual(found.length - 1);
  });

  it.each([1, 20, 100])('measures no more than %i plans, none twice, the same ones each time', async (evaluations) => {
    const [first, second]: [string[], string[]] = [[], []];
    const run = await searchPlans(madeUp(5, first), options({ evaluations }));
    expect(run).toMatchObject({ evaluations, complete: false });
    expect(first).toHaveLength(evaluations);
    expect(new Set(first).size).toBe(evaluations);
    expect(summaryOf(await searchPlans(madeUp(5, second), options({ evaluations })))).toEqual(summaryOf(run));
    expect(second).toEqual(first);
  });

  it('gives the best of the wanted plans too', async () => {
    const wanted = ({ groups }: Plan): boolean => groups.length === 2 && groups.every(({ length }) => length === 2);
    const { found } = await searchPlans(madeUp(4), options({ evaluations: 200, wanted }));
    const { best, uniform } = found.at(-1)!;
    expect(wanted(best.plan)).toBe(true);
    expect(uniform).toBeUndefined();
    for (const other of found)
      if (wanted(other.best.plan)) expect(best.quality.kl).toBeLessThanOrEqual(other.best.quality.kl);
  });

  it('ends with its time, in the middle of a measurement if it must', async () => {
    const slow: Measure = async (_, signal) => {
      await sleep(60_000, undefined, { signal }).catch(() => undefined);
      throw new CqilError('ABORTED', 'stopped');
    };
    expect(await searchPlans(slow, options({ milliseconds: 20 }))).toEqual({
      found: [],
      evaluations: 0,
      complete: false,
    });
  });

  it('stops when it is told to, and passes on what goes wrong', async () => {
    const abort = new AbortController();
    let calls = 0;
    const counting: Measure = async (plans) => {
      if (++calls === 3) abort.abort();
      return plans.map(() => quality(1));
    };
    await expectRejection('ABORTED', searchPlans(counting, options({ signal: abort.signal })));
    expect(calls).toBe(3);
    const failing: Measure = () => Promise.reject(new CqilError('DISPOSED', 'gone'));
    await expectRejection('DISPOSED', searchPlans(failing, options()));
  });

  it('reports what share of its budget is spent', async () => {
    const shares: number[] = [];
    await searchPlans(madeUp(1), options({ evaluations: 50, onProgress: (share) => shares.push(share) }));
    expect(shares).toEqual(shares.toSorted((a, b) => a - b));
    expect(shares.at(-1)).toBe(1);
  });
});

describe('goals', () => {
  const sequential = { phases: 80, kl: 0, perplexity: 10 };
  const points = [
    { phases: 40, kl: 0.2, perplexity: 12 },
    { phases: 60, kl: 0.05, perplexity: 10.4 },
    { phases: 70, kl: 0.06, perplexity: 10.1 },
    { phases: 75, kl: 0.01, perplexity: 10.2 },
  ];

  it.each<[Goal, number | undefined]>([
    [{ kind: 'kl', limit: 1 }, 40],
    [{ kind: 'kl', limit: 0.055 }, 60],
    [{ kind: 'kl', limit: 0.05 }, 60],
    [{ kind: 'kl', limit: 0.001 }, undefined],
    [{ kind: 'perplexity', limit: 0.04 }, 60],
    [{ kind: 'perplexity', limit: 0.01 }, 70],
    [{ kind: 'perplexity', limit: 0 }, undefined],
    [{ kind: 'phases', limit: 0.05 }, 75],
    [{ kind: 'phases', limit: 0.1 }, 60],
    [{ kind: 'phases', limit: 0.25 }, 60],
    [{ kind: 'phases', limit: 0.5 }, 40],
    [{ kind: 'phases', limit: 0.51 }, undefined],
  ])('%j: %s phases', (goal, phases) => {
    expect(bestFor(goal, points, sequential)?.phases).toBe(phases);
  });

  it('say in one sentence what is nearest when none is met', () => {
    const message = (goal: Goal) => unreachable(goal, points, sequential).message;
    expect(message({ kind: 'kl', limit: 0.001 })).toBe(
      'No plan was found with a KL of at most 0.001 nats per token: the nearest has 75 phases instead of 80 (6.25 ' +
        '% fewer), KL 0.0100 and perplexity 10.200 (2 % more).',
    );
    expect(message({ kind: 'perplexity', limit: 0 })).toContain(
      'a perplexity at most 0 % above sequential: the nearest has 70 phases',
    );
    expect(message({ kind: 'phases', limit: 0.6 })).toContain(
      'at least 60 % fewer phases: the nearest has 40 phases instead of 80 (50 % fewer)',
    );
    expect(unreachable({ kind: 'kl', limit: 1 }, [], sequential)).toMatchObject({
      code: 'GOAL_UNREACHABLE',
      message: expect.stringContaining('the budget ended'),
    });
    expect(describeGoal({ kind: 'phases', limit: 0.25 })).toBe('at least 25 % fewer phases');
  });

  it('in time take the plan with the least KL that is fast enough, whatever its phases', () => {
    const timed = points.map((point, i) => ({ ...point, msPerToken: [4, 7, 6.5, 9][i]! }));
    const before = { ...sequential, msPerToken: 10 };
    const found = (limit: number) => bestFor({ kind: 'time', limit }, timed, before)?.phases;
    expect([0.1, 0.3, 0.35, 0.36, 0.6, 0.61].map(found)).toEqual([75, 60, 70, 40, 40, undefined]);
    expect(unreachable({ kind: 'time', limit: 0.7 }, timed, before).message).toBe(
      'No plan was found with at least 70 % less predicted time per token: the nearest has 40 phases instead of 80 ' +
        '(50 % fewer), a predicted 4.00 ms per token instead of 10.0 (60 % less), KL 0.200 and perplexity 12.000 (20 ' +
        '% more).',
    );
  });

  it('know which number of stages decides', () => {
    const best = new Map([3, 5, 8].map((stages) => [stages, { quality: quality(0.8 / stages ** 2) } as Trial]));
    expect(decidingStages({ kind: 'phases', limit: 0.25 }, { layers: 16, guard: 2 }, best)).toBe(10);
    expect(decidingStages({ kind: 'kl', limit: 0.04 }, SPACE, best)).toBe(5);
    expect(decidingStages({ kind: 'perplexity', limit: 0.02 }, SPACE, best)).toBe(8);
    expect(decidingStages({ kind: 'kl', limit: 0.001 }, SPACE, best)).toBe(10);
    const planned = new Map(
      [...best].map(([stages, trial]) => [stages, { ...trial, plan: { layers: stages } as Plan }]),
    );
    expect(decidingStages({ kind: 'time', limit: 0.3 }, SPACE, planned, ({ layers }) => layers <= 5)).toBe(5);
    expect(decidingStages({ kind: 'time', limit: 0.3 }, SPACE, planned, () => false)).toBe(1);
  });
});

describe('the guard', () => {
  /** Pairs that start with `bad` layers cost 1, the others what is drawn, about 0.01. */
  const meterOf = (bad: readonly number[], asked: Plan[] = []) => ({
    measure: async (plans: readonly Plan[]) => {
      asked.push(...plans);
      return plans.map(({ groups: [group] }) =>
        quality(bad.includes(group![0]!) ? 1 : 0.005 + 0.01 * randomUniform(group![0]!)()),
      );
    },
  });

  it.each([
    [16, [], 0],
    [16, [0], 1],
    [16, [0, 1], 2],
    [16, [1], 2],
    [32, [0, 1, 2, 3], 4],
    [5, [0], 1],
    [3, [0], 1],
    [2, [0], 0],
    [1, [], 0],
  ])('of %i layers, pairs from %j being bad, is %i', async (layers, bad, guard) => {
    const asked: Plan[] = [];
    const found = await measureGuard(layers, meterOf(bad, asked));
    expect(found.guard).toBe(guard);
    expect(found.pairs.map(({ first }) => first)).toEqual(asked.map(({ groups }) => groups[0]![0]));
    expect(asked.length).toBeLessThanOrEqual(8);
    expect(new Set(found.pairs.map(({ first }) => first)).size).toBe(found.pairs.length);
    for (const { groups } of asked) expect(groups).toEqual([[groups[0]![0], groups[0]![0]! + 1]]);
    if (found.pairs.length > 0) expect(Math.max(...found.pairs.map(({ first }) => first))).toBeLessThan(layers - 1);
  });
});

describe('what was found', () => {
  it("is measured on the held-out part; the paper's plan stands where it is better there", async () => {
    const trial = (spec: string, kl: number): Trial => ({
      grouping: { sizes: [], bypass: 0 },
      plan: resolvePlan(spec, 8),
      method: 'uniform',
      quality: quality(kl),
    });
    const [best, uniform, other] = [
      trial('{"groups": [[2,3],[6,7]]}', 0.1),
      trial('P3-S2-E5', 0.2),
      trial('P2-S4-E6', 0.05),
    ];
    const heldOut = new Map([
      [best.plan, 0.4],
      [uniform.plan, 0.3],
      [other.plan, 0.1],
    ]);
    const meter = { measure: async (plans: readonly Plan[]) => plans.map((plan) => quality(heldOut.get(plan)!)) };
    const points = await measureFound(
      { found: [{ best, uniform }, { best: other }], evaluations: 3, complete: true },
      meter,
    );
    const again = await measureFound(
      { found: [{ best: other }, { best: other }], evaluations: 1, complete: true },
      meter,
    );
    expect(again.map(({ plan }) => plan)).toEqual([other.plan]);
    expect(points).toMatchObject([
      { plan: uniform.plan, kl: 0.3, fitKl: 0.2, phases: 30, uniform: { kl: 0.3 } },
      { plan: other.plan, kl: 0.1, fitKl: 0.05, phases: 35, uniform: undefined },
    ]);
  });

  it('the front has no point that another is as good as', () => {
    const point = (phases: number, kl: number) => ({ phases, kl, perplexity: 1 });
    const points = [point(60, 0.2), point(40, 0.3), point(50, 0.3), point(60, 0.1), point(70, 0.15), point(80, 0.05)];
    expect(paretoFront(points)).toEqual([point(40, 0.3), point(60, 0.1), point(80, 0.05)]);
    expect(paretoFront([])).toEqual([]);
  });
});
