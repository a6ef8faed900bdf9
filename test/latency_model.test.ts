import { describe, expect, it } from 'vitest';
import { syntheticCheckpoint } from '../lib/checkpoint/synthetic.js';
import { quantile, rankCorrelation } from '../lib/analysis/eval/statistics.js';
import { agreement, type Trial } from '../lib/analysis/latency/agreement.js';
import { calibrationDecodes } from '../lib/analysis/latency/calibrate.js';
import { LatencyModel, type Rates, type TimedDecode } from '../lib/analysis/latency/latency_model.js';
import { nonNegativeLeastSquares } from '../lib/analysis/latency/least_squares.js';
import { randomPlans } from '../lib/analysis/latency/random_plans.js';
import { modelBytes, phaseWork, sumWork, WORK_KINDS, type Computing } from '../lib/analysis/latency/work.js';
import type { Program } from '../lib/engine/native.js';
import { countStages, resolvePlan, type Plan } from '../lib/plan/plan.js';
import { programOf } from './support/made_up_program.js';
import { randomNormal, randomUniform } from './support/random.js';

const checkpoint = syntheticCheckpoint('smollm2-135m', 'Q4_0');
const layers = checkpoint.config.nLayers;
const bytes = modelBytes(checkpoint, 'f32', { aloneBytes: 0, queriesTogether: 4 });
/** Milliseconds: 2 µs per wait, some tens of GB/s. */
const TRUE_RATES: Rates = {
  waits: 2e-3,
  crewWaits: 1e-3,
  shared: 1 / 40e6,
  apart: 1 / 42e6,
  idle: 1 / 60e6,
  head: 1 / 30e6,
  kv: 1 / 20e6,
};

function program(plan: Plan): Program {
  const sizes = new Map(plan.groups.map((group) => [group[0]!, group.length]));
  const stages: number[] = [];
  for (let layer = 0; layer < plan.layers; layer += stages.at(-1)!) stages.push(sizes.get(layer) ?? 1);
  return programOf(stages, plan.bypass);
}

/** Timings of a machine that follows the formula up to noise: a factor of about 1 ± `noise`. */
function timed(
  placement: Computing,
  decodes: ReadonlyArray<Omit<TimedDecode, 'program' | 'ms'> & { plan: Plan }>,
  noise: number,
  seed: number,
): TimedDecode[] {
  const normal = randomNormal(seed);
  return decodes.map(({ plan, execution, at }) => {
    const work = sumWork(phaseWork(bytes, program(plan), execution, placement, at));
    const ms = WORK_KINDS.reduce((sum, kind) => sum + work[kind] * TRUE_RATES[kind], 0);
    return { program: program(plan), execution, at, ms: ms * (1 + noise * normal()) };
  });
}

describe('a calibration', () => {
  it.each<[Computing['backend'], number]>([
    ['cpu', 1],
    ['cpu', 2],
    ['cpu', 3],
    ['cpu', 8],
    ['cuda', 1],
  ])('on %s with %i threads tells what any plan takes from the few it times', (backend, threads) => {
    const placement = { backend, threads };
    const exact = LatencyModel.fit(bytes, placement, timed(placement, calibrationDecodes(checkpoint.config), 0, 1));
    const noisy = LatencyModel.fit(bytes, placement, timed(placement, calibrationDecodes(checkpoint.config), 0.01, 2));
    const decodes = randomPlans(layers, 40, 7).flatMap((plan) =>
      (['wide', 'lanes'] as const).map((execution) => ({ plan, execution, at: { position: 300, logits: true } })),
    );
    for (const [model, bound] of [
      [exact, 1e-6],
      [noisy, 0.05],
    ] as const) {
      for (const one of timed(placement, decodes, 0, 3)) {
        const { msPerToken } = model.predict(one.program, one.execution, one.at);
        expect(Math.abs(msPerToken / one.ms - 1)).toBeLessThan(bound);
      }
    }
  });

  it('ranks random plans, with timings that scatter by one percent', () => {
    const placement = { backend: 'cpu', threads: 2 } as const;
    const model = LatencyModel.fit(bytes, placement, timed(placement, calibrationDecodes(checkpoint.config), 0.01, 4));
    const decodes = timed(
      placement,
      randomPlans(layers, 30, 1).map((plan) => ({ plan, execution: 'lanes', at: { position: 128, logits: true } })),
      0,
      5,
    );
    const predicted = decodes.map((one) => model.predict(one.program, 'lanes', one.at).msPerToken);
    expect(
      rankCorrelation(
        predicted,
        decodes.map(({ ms }) => ms),
      ),
    ).toBeGreaterThan(0.95);
  });

  it('gives no negative price, whatever the timings', () => {
    const normal = randomNormal(8);
    const decodes = timed({ backend: 'cpu', threads: 2 }, calibrationDecodes(checkpoint.config), 0, 9).map((one) => ({
      ...one,
      ms: one.ms * Math.exp(normal()),
    }));
    const { rates } = LatencyModel.fit(bytes, { backend: 'cpu', threads: 2 }, decodes);
    for (const kind of WORK_KINDS) expect(rates[kind]).toBeGreaterThanOrEqual(0);
  });

  it('fits models of one layer, and of a context of one position', () => {
    expect(
      calibrationDecodes({ nLayers: 1, contextLength: 1 }).map(({ plan, at }) => [plan.groups.length, at.position]),
    ).toEqual([
      [0, 0],
      [0, 0],
      [0, 0],
      [0, 0],
    ]);
    for (const { plan, at } of calibrationDecodes({ nLayers: 3, contextLength: 40 })) {
      expect(at.position).toBeLessThan(40);
      expect(Math.max(1, ...plan.groups.map(({ length }) => length))).toBeLessThanOrEqual(3);
    }
  });
});

describe('a prediction', () => {
  const model = new LatencyModel(bytes, { backend: 'cpu', threads: 2 }, TRUE_RATES);
  const at = { position: 128, logits: true };

  it('is the sum over phases, each kind counted', () => {
    const { msPerToken, phases } = model.predict(program(resolvePlan('P2-S0-E30', layers)), 'wide', at);
    expect(phases.map(({ kind, count }) => [kind, count])).toEqual([
      ['embed', 1],
      ['qkv', 15],
      ['attention', 15],
      ['attention_out', 15],
      ['gate_up', 15],
      ['down', 15],
      ['head', 1],
    ]);
    expect(phases.reduce((sum, { ms }) => sum + ms, 0)).toBeCloseTo(msPerToken, 12);
    expect(phases[0]!.ms).toBe(TRUE_RATES.waits);
  });

  it('of auto is that of the faster execution', () => {
    const pairs = program(resolvePlan('P2-S0-E30', layers));
    const threes = program(resolvePlan('P3-S0-E30', layers));
    expect(model.predict(pairs, 'auto', at)).toEqual(model.predict(pairs, 'lanes', at));
    expect(model.predict(threes, 'auto', at)).toEqual(model.predict(threes, 'wide', at));
    expect(model.predict(program(resolvePlan('sequential', layers)), 'auto', at).execution).toBe('wide');
  });
});

describe('least squares', () => {
  it('finds what gave the targets, and 0 where less would be better', () => {
    const random = randomUniform(1);
    const rows = Array.from({ length: 12 }, () => [random(), 1e6 * random(), random(), 0]);
    const x = [2, 3e-6, 0, 0];
    const found = nonNegativeLeastSquares(
      rows,
      rows.map((row) => row.reduce((sum, value, i) => sum + value * x[i]!, 0)),
    );
    for (const [i, value] of found.entries()) expect(value).toBeCloseTo(x[i]!, 9);
    expect(
      nonNegativeLeastSquares(
        [
          [1, 1],
          [1, 2],
          [1, 3],
        ],
        [3, 2, 1],
      ),
    ).toEqual([expect.closeTo(2, 9), 0]);
  });
});

describe('random plans', () => {
  it('are sound, distinct, grouped, and the same for the same seed', () => {
    const plans = randomPlans(16, 30, 5);
    expect(randomPlans(16, 30, 5)).toEqual(plans);
    expect(randomPlans(16, 30, 6)).not.toEqual(plans);
    expect(new Set(plans.map((plan) => JSON.stringify(plan))).size).toBe(30);
    for (const plan of plans) expect(resolvePlan(plan, 16).groups.length).toBeGreaterThan(0);
    const stages = plans.map(countStages);
    expect(Math.max(...stages) - Math.min(...stages)).toBeGreaterThan(4);
  });

  it('end where a model has no more of them', () => {
    expect(randomPlans(1, 10, 0)).toEqual([]);
    expect(randomPlans(2, 10, 0)).toHaveLength(2);
  });
});

describe('agreement', () => {
  const trial = (plan: number, execution: 'wide' | 'lanes', predictedMs: number, ms: number): Trial => ({
    plan,
    execution,
    predictedMs,
    timingsMs: [ms, ms, ms],
  });

  it('compares by error and by rank, each execution and the faster one', () => {
    const trials = [
      trial(0, 'wide', 4, 4),
      trial(1, 'wide', 3, 3.3),
      trial(1, 'lanes', 2, 1),
      trial(2, 'wide', 2, 2),
      trial(2, 'lanes', 5, 5),
    ];
    const { error, ranking } = agreement(trials);
    expect(error.max).toBeCloseTo(1, 12);
    expect(error.median).toBe(0);
    // Plan 0 has no lanes of its own. Wide: 4, 3, 2 against 4, 3.3, 2; lanes: 4, 2, 5 against 4, 1, 5; the faster: 4,
    // 2, 2 against 4, 1, 2.
    expect(ranking.wide.rankCorrelation).toBeCloseTo(1, 12);
    expect(ranking.lanes.rankCorrelation).toBeCloseTo(1, 12);
    expect(ranking.fastest.rankCorrelation).toBeCloseTo(rankCorrelation([4, 2, 2], [4, 1, 2]), 12);
    expect(ranking.fastest.repeatability).toBeCloseTo(1, 12);
  });

  it("rank correlation is Spearman's, with ties", () => {
    expect(rankCorrelation([1, 2, 3, 4, 5], [2, 1, 4, 3, 5])).toBeCloseTo(0.8, 12);
    expect(rankCorrelation([1, 10, 100], [3, 2, 1])).toBeCloseTo(-1, 12);
    expect(rankCorrelation([1, 1, 2], [1, 2, 3])).toBeCloseTo(Math.sqrt(3) / 2, 12);
    expect(rankCorrelation([1, 1], [1, 2])).toBeNaN();
    expect(quantile([1], 0.5)).toBe(1);
  });
});
