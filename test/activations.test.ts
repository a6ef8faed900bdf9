import path from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Activations } from '../lib/engine/activations.js';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import type { Checkpoint, DType } from '../lib/checkpoint/types.js';
import { loadModel, shippedModelPath } from '../lib/model/load.js';
import { describeMachine } from '../lib/engine/machine.js';
import { decodeAll, engineLogProbs, expectSameBits, someIds } from './reference/engine.js';
import { logSoftmax, referenceLogProbs, referenceModel, type ReferenceModel } from './reference/forward.js';
import { klDivergence, maxDifference } from './reference/measure.js';
import { rewriteAsGguf } from './reference/rewrite_gguf.js';
import { expectSameInPieces, SHAPE as shape } from './support/activations.js';
import { writeRandomModel } from './support/random_model.js';
import { describeShared, sharedData } from './support/shared_data.js';
import { tempFolder } from './support/temp_folder.js';

const folder = tempFolder();
const DTYPES: DType[] = ['Q8_0', 'Q4_0', 'Q4_K', 'Q6_K'];

/**
 * In nats: the largest |Δ log-probability| over all positions and tokens of the vocabulary, and the mean KL(reference ‖
 * engine).
 */
interface Deviation {
  logProb: number;
  kl: number;
}

/**
 * How right the engine is: against float64 that rounds vectors too. A value between two roundings may take the other
 * one in float32.
 */
const ERROR: Deviation = { logProb: 5e-2, kl: 1e-4 };
/**
 * What rounding costs trained models: against float64 that rounds nothing, on the dequantized weights. The models are
 * small, with 128 values a vector; the float64 reference with rounded vectors is as far away.
 */
const COST: Deviation = { logProb: 0.5, kl: 1e-3 };

/** The roundings of lib/engine/activations.ts, written apart from the engine: to int8. */
function roundToInt8(vector: Float64Array): Float64Array {
  const out = new Float64Array(vector.length);
  for (let at = 0; at < vector.length; at += 32) {
    const block = vector.subarray(at, at + 32);
    const d = block.reduce((highest, value) => Math.max(highest, Math.abs(value)), 0) / 127;
    out.set(
      block.map((value) => (d > 0 ? d * Math.round(value / d) : 0)),
      at,
    );
  }
  return out;
}

/** To bf16: the upper half of a float32, ties to even. */
function roundToBf16(vector: Float64Array): Float64Array {
  const bits = new Uint32Array(1);
  const value = new Float32Array(bits.buffer);
  return vector.map((v) => {
    value[0] = v;
    bits[0] = (bits[0]! + 0x7fff + ((bits[0]! >>> 16) & 1)) & 0xffff0000;
    return value[0];
  });
}

async function deviation(
  activations: Activations,
  file: string,
  ids: number[],
  expected: Float64Array[],
): Promise<Deviation> {
  const model = await loadModel(file, { threads: 2, kvCache: 'f32', activations });
  const rows = await engineLogProbs(model.createSession(), ids);
  await model.dispose();
  return {
    logProb: Math.max(...rows.map((row, i) => maxDifference(row, expected[i]!))),
    kl: meanKl(expected, rows),
  };
}

function meanKl(expected: Float64Array[], rows: Float64Array[]): number {
  return rows.reduce((sum, row, i) => sum + klDivergence(expected[i]!, row), 0) / rows.length;
}

function expectWithin(found: Deviation, bounds: Deviation, label: string): void {
  expect(found.logProb, label).toBeLessThan(bounds.logProb);
  expect(found.kl, label).toBeLessThan(bounds.kl);
}

describe('int8 activations', () => {
  const ids = someIds(40, shape.vocabSize);
  // Read by the addon whenever a model is loaded.
  afterEach(() => delete process.env['CQIL_ISA']);

  it.each(DTYPES)('%s: log-probabilities are those of float64 with rounded vectors', async (dtype) => {
    const file = writeRandomModel(path.join(folder, `${dtype}.gguf`), { format: 'gguf', dtype, shape, seed: 41 });
    const reference = referenceModel(await openCheckpoint(file));
    const found = await deviation('int8', file, ids, referenceLogProbs({ ...reference, roundInput: roundToInt8 }, ids));
    expectWithin(found, ERROR, dtype);
    const unrounded = await deviation('int8', file, ids, referenceLogProbs(reference, ids));
    expect(unrounded.kl).toBeGreaterThan(found.kl);
  });

  it.each(DTYPES)(
    '%s: every instruction set with fused multiply-adds gives the same bits, token by token and in one piece',
    async (dtype) => {
      const file = writeRandomModel(path.join(folder, `isas-${dtype}.gguf`), {
        format: 'gguf',
        dtype,
        shape,
        seed: 43,
      });
      let expected: Float32Array[] | undefined;
      for (const { name, supported } of describeMachine().isas) {
        if (!supported) continue;
        process.env['CQIL_ISA'] = name;
        const model = await loadModel(file, { threads: 2, kvCache: 'f32', activations: 'int8' });
        const rows = await decodeAll(model.createSession(), ids);
        expectSameBits([await model.createSession().prefill(ids)], rows.slice(-1), `${name} in one piece`);
        await model.dispose();
        if (name === 'plain') continue;
        expected ??= rows;
        expectSameBits(rows, expected, name);
      }
    },
  );
});

describe('bf16 activations', () => {
  const ids = someIds(40, shape.vocabSize);
  const tall = { ...shape, dim: 272, headDim: 68, hiddenDim: 530 }; // no whole vectors of the processor
  afterEach(() => delete process.env['CQIL_ISA']);

  it.each([
    ['whole vectors', shape],
    ['rests of vectors', tall],
  ])(
    '%s: on every instruction set, log-probabilities are those of float64 with rounded vectors, and prefill has ' +
      'the bits of decode',
    async (name, ofShape) => {
      const file = writeRandomModel(path.join(folder, `bf16-${name}.gguf`), {
        format: 'gguf',
        dtype: 'BF16',
        shape: ofShape,
        seed: 61,
      });
      const reference = referenceModel(await openCheckpoint(file));
      const expected = referenceLogProbs({ ...reference, roundInput: roundToBf16 }, ids);
      const unrounded = referenceLogProbs(reference, ids);
      for (const isa of describeMachine().isas.filter(({ supported }) => supported)) {
        process.env['CQIL_ISA'] = isa.name;
        const found = await deviation('bf16', file, ids, expected);
        expectWithin(found, ERROR, isa.name);
        expect((await deviation('bf16', file, ids, unrounded)).kl, isa.name).toBeGreaterThan(2 * found.kl);
        const model = await loadModel(file, { threads: 2, kvCache: 'f32', activations: 'bf16' });
        const rows = await decodeAll(model.createSession(), ids);
        expectSameBits([await model.createSession().prefill(ids)], rows.slice(-1), isa.name);
        await model.dispose();
      }
    },
  );

  it('has the bits of a forward in pieces, with other threads and other executions', async () => {
    const file = writeRandomModel(path.join(folder, 'bf16-pieces.gguf'), {
      format: 'gguf',
      dtype: 'BF16',
      shape,
      seed: 67,
    });
    const model = await loadModel(file, { threads: 1, kvCache: 'f32', activations: 'bf16' });
    const rows = await decodeAll(model.createSession({ plan: 'P2-D1-S0-E2' }), ids);
    await model.dispose();
    await expectSameInPieces(file, 'bf16', ids, rows);
  });

  it('is the default for BF16 weights where the processor multiplies bf16', async () => {
    const file = writeRandomModel(path.join(folder, 'bf16-default.gguf'), {
      format: 'gguf',
      dtype: 'BF16',
      shape,
      seed: 71,
    });
    for (const { name, supported } of describeMachine().isas) {
      if (!supported) continue;
      process.env['CQIL_ISA'] = name;
      const model = await loadModel(file, { threads: 1 });
      expect(model.activations, name).toBe(name === 'avx512bf16' ? 'bf16' : 'float32');
      await model.dispose();
    }
  });
});

describe('activations of the model that ships', () => {
  let checkpoint: Checkpoint;
  let exact: ReferenceModel;
  let ids: number[];
  beforeAll(async () => {
    checkpoint = await openCheckpoint(shippedModelPath());
    exact = referenceModel(checkpoint);
    ids = await someText(shippedModelPath(), 40);
  });

  it.each<[DType, Activations, number]>([
    ['BF16', 'bf16', 2e-4],
    ['Q8_0', 'int8', COST.kl],
    ['Q4_0', 'int8', COST.kl],
  ])('as %s, %s: within %f in KL of float64 that rounds nothing', async (dtype, activations, kl) => {
    const file = path.join(folder, `shipped-${dtype}.gguf`);
    await rewriteAsGguf(checkpoint, file, dtype);
    const expected = referenceLogProbs(referenceModel(await openCheckpoint(file)), ids);
    const found = await deviation(activations, file, ids, expected);
    expectWithin(found, { ...COST, kl }, dtype);
    // Next to what 4 bits a weight have cost, rounded vectors cost nothing.
    if (dtype === 'Q4_0') expect(found.kl).toBeLessThan(0.05 * meanKl(referenceLogProbs(exact, ids), expected));
  });
});

describeShared('bf16 activations of trained models', () => {
  it('stories-16l: within 2e-4 in KL of float64 that rounds nothing', async () => {
    const source = sharedData('models', 'stories-16l');
    const ids = await someText(source);
    const found = await deviation(
      'bf16',
      source,
      ids,
      referenceLogProbs(referenceModel(await openCheckpoint(source)), ids),
    );
    expectWithin(found, { logProb: 0.2, kl: 2e-4 }, 'stories-16l');
  });
});

describeShared('int8 activations of trained models', () => {
  it.each<[string, DType]>([
    ['stories-16l', 'Q8_0'],
    ['stories-16l', 'Q4_0'],
    ['babyllama-tok105/hf', 'Q8_0'],
    ['babyllama-tok105/hf', 'Q4_0'],
  ])('%s as %s: within 1e-3 in KL of float64 that rounds nothing', async (name, dtype) => {
    const source = await openCheckpoint(sharedData('models', name));
    const file = path.join(folder, `${name.replace('/', '-')}-${dtype}.gguf`);
    await rewriteAsGguf(source, file, dtype);
    const reference = referenceModel(await openCheckpoint(file));
    const ids = await someText(file);
    const expected = referenceLogProbs(reference, ids);
    const found = await deviation('int8', file, ids, expected);
    expectWithin(found, COST, `${name} ${dtype}`);
    // Next to what rounding the weights to 4 bits has cost, they cost nothing; of 8 bits, no more than about as much
    // again.
    const unrounded = referenceLogProbs(referenceModel(source), ids);
    expect(found.kl).toBeLessThan(meanKl(unrounded, expected) * (dtype === 'Q4_0' ? 0.05 : 2));
  });
});

/** What the model itself goes on with: text, not noise. */
async function someText(file: string, count = 100): Promise<number[]> {
  const ids = [1];
  const writer = await loadModel(file, { kvCache: 'f32' });
  const session = writer.createSession();
  for (
    let row = logSoftmax(await session.decode(1));
    ids.length < count;
    row = logSoftmax(await session.decode(ids.at(-1)!))
  )
    ids.push(pick(row, ids.length));
  await writer.dispose();
  return ids;
}

/** One of the three likeliest, in turn, so that a text does not repeat itself. */
function pick(row: Float64Array, turn: number): number {
  const likeliest = Array.from(row.keys()).sort((a, b) => row[b]! - row[a]!);
  return likeliest[turn % 3 === 0 ? (turn % 2) + 1 : 0]!;
}
