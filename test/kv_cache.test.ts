import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { chooseKvCache, KV_CACHES, kvBytesPerPosition, type KvCache } from '../lib/engine/kv_cache.js';
import { loadModel, shippedModelPath } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import { decodeAll, engineLogProbs, expectSameBits, someIds } from './reference/engine.js';
import { dequantize } from './reference/dequantize.js';
import { referenceLogProbs, referenceModel } from './reference/forward.js';
import { klDivergence, maxDifference } from './reference/measure.js';
import { encode } from './support/encode.js';
import { expectCode, expectRejection } from './support/expect_code.js';
import { writeRandomModel, type RandomShape } from './support/random_model.js';
import { describeShared, sharedData } from './support/shared_data.js';
import { tempFolder } from './support/temp_folder.js';

const folder = tempFolder();

/**
 * Over all positions and all tokens of the vocabulary, nats: the largest |Δ log-probability| and the largest
 * KL(reference ‖ engine).
 */
interface Deviation {
  logProb: number;
  kl: number;
}

/**
 * What the formats cost: bounds against float64 with unrounded keys and values, on models small enough to feel every
 * rounding. f16 rounds to 2^-11 of a value, q8_0 to 1/254 of the largest of 32 values.
 */
const COST: Record<KvCache, Deviation> = {
  f32: { logProb: 1e-4, kl: 1e-9 },
  f16: { logProb: 2e-2, kl: 1e-5 },
  q8_0: { logProb: 1, kl: 1e-2 },
};

/**
 * How right the engine is: bounds against float64 with keys and values rounded to the format. A value between two
 * roundings may take the other one in float32, which moves it by a whole step.
 */
const ERROR: Record<KvCache, Deviation> = {
  f32: { logProb: 1e-4, kl: 1e-9 },
  f16: { logProb: 4e-3, kl: 1e-6 },
  q8_0: { logProb: 2e-2, kl: 1e-4 },
};

/** What comes back out of a cache, written apart from the engine. */
const ROUNDED: Record<KvCache, (head: Float64Array) => Float64Array> = {
  f32: (head) => head,
  f16: (head) => head.map(half),
  q8_0: (head) => {
    const out = new Float64Array(head.length);
    for (let at = 0; at < head.length; at += 32) {
      const block = head.subarray(at, at + 32);
      const d = block.reduce((highest, value) => Math.max(highest, Math.abs(value)), 0) / 127;
      out.set(
        block.map((value) => half(d) * (d > 0 ? Math.round(value / d) : 0)),
        at,
      );
    }
    return out;
  },
};

function half(value: number): number {
  return dequantize('F16', encode('F16', Float64Array.of(value)), 1)[0]!;
}

async function deviation(model: Model, kvCache: KvCache, ids: number[], expected: Float64Array[]): Promise<Deviation> {
  const session = model.createSession({ kvCache, contextLength: ids.length });
  const rows = await engineLogProbs(session, ids);
  session.close();
  return {
    logProb: Math.max(...rows.map((row, i) => maxDifference(row, expected[i]!))),
    kl: Math.max(...rows.map((row, i) => klDivergence(expected[i]!, row))),
  };
}

function expectWithin(found: Deviation, bounds: Deviation, label: string): void {
  expect(found.logProb, label).toBeLessThan(bounds.logProb);
  expect(found.kl, label).toBeLessThan(bounds.kl);
}

/** Holds every format to both bounds on random tokens. */
async function expectRight(file: string, count = 60): Promise<void> {
  const checkpoint = await openCheckpoint(file);
  const ids = someIds(count, checkpoint.config.vocabSize);
  const reference = referenceModel(checkpoint);
  const unrounded = referenceLogProbs(reference, ids);
  const model = await loadModel(file, { threads: 2, activations: 'float32' });
  let previous = 0;
  for (const kvCache of KV_CACHES) {
    const rounded = referenceLogProbs({ ...reference, roundKv: ROUNDED[kvCache] }, ids);
    expectWithin(await deviation(model, kvCache, ids, rounded), ERROR[kvCache], `${kvCache} against rounded`);
    const cost = await deviation(model, kvCache, ids, unrounded);
    expectWithin(cost, COST[kvCache], `${kvCache} against unrounded`);
    // Each format rounds more than the one before it.
    expect(cost.logProb).toBeGreaterThan(previous);
    previous = cost.logProb;
  }
  await model.dispose();
}

describe('log-probabilities with a rounded KV cache', () => {
  // Heads of whole blocks, of less than one, and of one and a bit.
  it.each<[string, Partial<RandomShape>]>([
    ['head_dim 64', { dim: 256, hiddenDim: 256, nHeads: 4, nKvHeads: 2, vocabSize: 99 }],
    ['head_dim 8', {}],
    ['head_dim 40', { dim: 80, nHeads: 2, nKvHeads: 1 }],
  ])('%s: within the bounds of float64 with and without rounding', async (name, shape) => {
    await expectRight(writeRandomModel(path.join(folder, name), { format: 'huggingface', shape, seed: 23 }));
  });
});

describe('log-probabilities of the model that ships, with a rounded KV cache', () => {
  it('are within the bounds of float64 with and without rounding', async () => {
    await expectRight(shippedModelPath(), 24);
  });
});

describeShared('log-probabilities of a trained model with a rounded KV cache', () => {
  it('are within the bounds of float64 with and without rounding', async () => {
    await expectRight(sharedData('models', 'stories260K', 'hf'));
  });
});

describe('the kvCache option', () => {
  const ids = someIds(30, 64);
  let file: string;
  let model: Model;
  beforeAll(async () => {
    file = writeRandomModel(path.join(folder, 'option'), { format: 'huggingface', seed: 29 });
    model = await loadModel(file, { threads: 1, kvCache: 'f16' });
  });
  afterAll(() => model.dispose());

  it('of the model is what its sessions use unless they say otherwise', async () => {
    expect(model.kvCache).toBe('f16');
    const rows = await decodeAll(model.createSession(), ids);
    expectSameBits(await decodeAll(model.createSession({ kvCache: 'f16' }), ids), rows, 'f16 said twice');
    const other = await loadModel(file, { threads: 1 });
    expect(other.kvCache).toBe('f32');
    const exact = await decodeAll(other.createSession(), ids);
    expectSameBits(await decodeAll(model.createSession({ kvCache: 'f32' }), ids), exact, 'f32 of a session');
    expect(maxDifference(rows.at(-1)!, exact.at(-1)!)).toBeGreaterThan(0);
    await other.dispose();
  });

  it.each(KV_CACHES)('%s: prefill has the bits of decode, and truncating back changes nothing', async (kvCache) => {
    const rows = await decodeAll(model.createSession({ kvCache }), ids);
    const session = model.createSession({ kvCache });
    expectSameBits([await session.prefill(ids)], rows.slice(-1), 'in one piece');
    session.truncate(7);
    await session.prefill(ids.slice(7, 11));
    expectSameBits([await session.prefill(ids.slice(11))], rows.slice(-1), 'again from 7, in two pieces');
  });

  it('is f16 by default where most weights are multiplied with rounded activations', async () => {
    const rounded = writeRandomModel(path.join(folder, 'rounded.gguf'), { format: 'gguf', dtype: 'Q8_0', seed: 31 });
    for (const [options, expected] of [
      [{}, 'f16'],
      [{ activations: 'float32' }, 'f32'],
      [{ kvCache: 'q8_0' }, 'q8_0'],
    ] as const) {
      const one = await loadModel(rounded, { threads: 1, ...options });
      expect(one.kvCache).toBe(expected);
      await one.dispose();
    }
    const matrix = { rows: 2, byteLength: 64 };
    expect(chooseKvCache('auto', 'int8', [{ dtype: 'F16', ...matrix }])).toBe('f32');
    expect(chooseKvCache('auto', 'bf16', [{ dtype: 'BF16', ...matrix }])).toBe('f16');
    expect(chooseKvCache('f32', 'int8', [{ dtype: 'Q8_0', ...matrix }])).toBe('f32');
  });

  it.each(['F16', 'q4_0', '', 16, null])('refuses %j', async (kvCache) => {
    const options = { kvCache: kvCache as KvCache };
    await expectRejection(
      'INVALID_ARGUMENT',
      loadModel(file, options),
      /^kvCache is .*; expected auto, f32, f16 or q8_0\.$/,
    );
    expectCode('INVALID_ARGUMENT', () => model.createSession(options), /^kvCache is .*; expected f32, f16 or q8_0\.$/);
  });
});

describe('the size of a KV cache', () => {
  it('is that of keys and values in whole blocks', () => {
    const llama7b = { nLayers: 32, nKvHeads: 32, headDim: 128 };
    expect(KV_CACHES.map((kvCache) => kvBytesPerPosition(llama7b, kvCache))).toEqual([1_048_576, 524_288, 278_528]);
    expect(kvBytesPerPosition({ nLayers: 1, nKvHeads: 3, headDim: 40 }, 'q8_0')).toBe(2 * 3 * 2 * 34);
  });
});
