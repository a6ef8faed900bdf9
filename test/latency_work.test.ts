import { describe, expect, it } from 'vitest';
import { syntheticCheckpoint } from '../lib/checkpoint/synthetic.js';
import { weightBytesPerToken } from '../lib/cli/memory.js';
import { kvBytesPerPosition } from '../lib/engine/kv_cache.js';
import {
  barriersPerToken,
  modelBytes,
  phaseWork,
  sumWork,
  type ModelBytes,
  type Computing,
  type Work,
} from '../lib/analysis/latency/work.js';
import { compilePlan } from '../lib/model/model.js';
import { resolvePlan } from '../lib/plan/plan.js';
import { programOf } from './support/made_up_program.js';

const checkpoint = syntheticCheckpoint('smollm2-135m', 'Q4_0');
const bytes = modelBytes(checkpoint, 'f16', { aloneBytes: 0, queriesTogether: 4 });
const TWO: Computing = { backend: 'cpu', threads: 2 };
const FIRST = { position: 0, logits: true };
/** Layers of 10 bytes, 2 in each phase; the MLP of layer 2 is larger. */
const small: ModelBytes = {
  layers: [2, 2, 12, 2, 2, 2].map((gate_up) => ({ qkv: 2, attention: 0, attention_out: 2, gate_up, down: 2 })),
  head: 7,
  kv: { bytesPerPosition: 30, units: 3, windows: [0, 0, 0, 0, 0, 0] },
  postNorms: false,
  matrices: [8, 8, 18, 8, 8, 8],
  alone: 0,
};

function total(
  sizes: number[],
  execution: 'wide' | 'lanes',
  placement: Computing,
  changes: { position?: number; logits?: boolean; bypass?: number } = {},
): Work {
  const { bypass, ...at } = changes;
  return sumWork(phaseWork(small, programOf(sizes, bypass), execution, placement, { ...FIRST, ...at }));
}

describe('the work of a program', () => {
  it('is every weight once, however its layers run', () => {
    const weights = weightBytesPerToken(checkpoint);
    for (const [plan, execution] of [
      ['sequential', 'wide'],
      ['P2-S0-E30', 'wide'],
      ['P2-S0-E30', 'lanes'],
      ['P3-S1-E30', 'lanes'],
    ] as const) {
      const program = programOf(resolveSizes(plan));
      const { shared, apart, head } = sumWork(phaseWork(bytes, program, execution, TWO, FIRST));
      // The norm before the output projection belongs to no phase's price.
      expect(shared + apart + head).toBe(weights - 4 * checkpoint.config.dim);
    }
  });

  it('waits once per phase, or, with lanes apart, where the formula joins them', () => {
    // test/native/execution_test.cc counts the same in the engine.
    expect(barriersPerToken(small, programOf([1, 1, 1, 1, 1, 1]), 'wide', TWO)).toBe(32);
    expect(barriersPerToken(small, programOf([1, 3, 2]), 'lanes', { ...TWO, threads: 1 })).toBe(0);
    expect(barriersPerToken(small, programOf([1, 3, 2]), 'wide', TWO)).toBe(17);
    expect(barriersPerToken(small, programOf([1, 3, 2]), 'lanes', TWO)).toBe(11);
    expect(total([1, 3, 2], 'lanes', { ...TWO, threads: 4 })).toMatchObject({ waits: 11, crewWaits: 8 });
    expect(barriersPerToken(small, programOf([1, 3, 2], 1), 'lanes', TWO)).toBe(13);
    expect(barriersPerToken(small, programOf([2, 4]), 'lanes', { backend: 'cuda', threads: 1 })).toBe(12);
  });

  it('is that of one thread where layers are small, while the others wait', () => {
    const alone = (
      sizes: number[],
      execution: 'wide' | 'lanes',
      changes: Partial<ModelBytes> = {},
      threads = 2,
      position = 0,
    ) =>
      sumWork(
        phaseWork(
          { ...small, alone: 38, ...changes },
          programOf(sizes),
          execution,
          { ...TWO, threads },
          { position, logits: true },
        ),
      );
    // test/native/execution_test.cc counts the same waits in the engine.
    const ones = [1, 1, 1, 1, 1, 1];
    expect(alone(ones, 'wide', { alone: 48 })).toMatchObject({ waits: 0, shared: 0, apart: 58, idle: 58 + 7, head: 7 });
    expect(alone([1, 3, 2], 'wide', { alone: 48 })).toMatchObject({
      waits: 12,
      apart: 8,
      shared: 50,
      idle: 8,
      head: 7,
    });
    expect(alone([1, 3, 2], 'lanes', { alone: 48 })).toMatchObject({ waits: 6, crewWaits: 0, shared: 0, apart: 58 });
    expect(alone([1, 3, 2], 'lanes', { alone: 48 }, 4)).toMatchObject({ waits: 6, crewWaits: 0 });
    expect(alone([1, 3, 2], 'wide', { alone: 300 })).toMatchObject({ waits: 0, shared: 0 });
    // The third layer has more weights than the others: only it is shared.
    expect(alone(ones, 'wide')).toMatchObject({ waits: 1 + 5 + 1 + 1, shared: 18, head: 7 });
    expect(alone(ones, 'wide', { alone: 37 })).toMatchObject({ waits: 32, apart: 0 });
    expect(alone(ones, 'wide', { alone: 48, head: 4 * 48 + 1 })).toMatchObject({ waits: 2, head: 4 * 48 + 1 });
    expect(alone(ones, 'wide', { alone: 48 }, 2, 1)).toMatchObject({ waits: 32 });
    expect(alone(ones, 'wide', { alone: 48 }, 1)).toMatchObject({ waits: 0, shared: 58, head: 7 });
  });

  it('leaves threads idle where lanes cannot be spread evenly', () => {
    expect(total([2, 4], 'lanes', TWO)).toMatchObject({ shared: 0, idle: 10 });
    expect(total([2, 4], 'wide', TWO)).toMatchObject({ apart: 0, idle: 0 });
    // Three lanes on two threads: while the first thread computes its second layer, the other has none.
    expect(total([3, 3], 'lanes', TWO)).toMatchObject({ idle: 2 + 2 + 12 + 2 + 8 });
    // Three threads, two lanes: the second lane has one thread, the first has two.
    expect(total([1, 1, 1, 1, 2], 'lanes', { ...TWO, threads: 3 })).toMatchObject({ shared: 42, apart: 16, idle: 8 });
    expect(total([3, 3], 'lanes', { ...TWO, threads: 1 })).toMatchObject({ idle: 0 });
  });

  it('reads keys and values of every position, in pieces that a thread takes whole', () => {
    // Three pieces per layer on two threads: one thread has two of them.
    expect(total([1, 1, 1, 1, 1, 1], 'wide', TWO, { position: 9 }).kv).toBe(6 * 10 * 40);
    expect(total([2, 2, 2], 'wide', TWO, { position: 9 }).kv).toBe(6 * 10 * 30);
    expect(total([2, 2, 2], 'lanes', TWO, { position: 9 }).kv).toBe(6 * 10 * 30);
    expect(total([2, 2, 2], 'wide', { ...TWO, threads: 1 }, { position: 9 }).kv).toBe(6 * 10 * 30);
    const windowed = { ...small, kv: { ...small.kv, windows: [4, 4, 4, 4, 4, 4] } };
    expect(
      sumWork(
        phaseWork(
          windowed,
          programOf([1, 1, 1, 1, 1, 1]),
          'wide',
          { ...TWO, threads: 1 },
          { position: 9, logits: true },
        ),
      ).kv,
    ).toBe(6 * 4 * 30);
    const { config } = checkpoint;
    const oneThread = sumWork(
      phaseWork(
        bytes,
        programOf(resolveSizes('sequential')),
        'wide',
        { ...TWO, threads: 1 },
        { position: 99, logits: true },
      ),
    );
    expect(oneThread.kv).toBeCloseTo(100 * kvBytesPerPosition(config, 'f16'), 6);
  });

  it('has no head without logits', () => {
    expect(total([1, 5], 'wide', TWO)).toMatchObject({ head: 7, waits: 12 });
    expect(total([1, 5], 'wide', TWO, { logits: false })).toMatchObject({ head: 0, waits: 11 });
  });

  describe('of the engine', () => {
    it('is of the program the engine compiles', () => {
      expect(compilePlan(checkpoint.config, resolvePlan('P3-D1-S4-E12', 30))).toEqual(
        programOf([1, 1, 1, 1, 3, 3, 2, ...Array.from({ length: 18 }, () => 1)], 1),
      );
    });
  });
});

/** Layers per stage of a plan of 30 layers. */
function resolveSizes(spec: string): number[] {
  const { groups } = resolvePlan(spec, 30);
  const sizes = new Map(groups.map((group) => [group[0]!, group.length]));
  const stages: number[] = [];
  for (let layer = 0; layer < 30; layer += stages.at(-1)!) stages.push(sizes.get(layer) ?? 1);
  return stages;
}
