import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  chooseActivations,
  roundedShare,
  type Activations,
  type ActivationsChoice,
} from '../lib/engine/activations.js';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import type { Checkpoint, DType } from '../lib/checkpoint/types.js';
import { loadModel, shippedModelPath } from '../lib/model/load.js';
import { describeMachine } from '../lib/engine/machine.js';
import type { Model } from '../lib/model/model.js';
import { decodeAll, engineLogProbs, expectSameBits, someIds } from './reference/engine.js';
import { logSoftmax, referenceLogProbs, referenceModel, type ReferenceModel } from './reference/forward.js';
import { klDivergence, maxDifference } from './reference/measure.js';
import { rewriteAsGguf } from './reference/rewrite_gguf.js';
import { expectRejection } from './support/expect_code.js';
import { writeRandomModel } from './support/random_model.js';
import { describeShared, sharedData } from './support/shared_data.js';
import { tempFolder } from './support/temp_folder.js';

const folder = tempFolder();
const DTYPES: DType[] = ['Q8_0', 'Q4_0', 'Q4_K', 'Q6_K'];
// Widths are whole blocks of every format, the numbers of rows are odd.
const shape = { dim: 256, hiddenDim: 512, headDim: 64, nHeads: 4, nKvHeads: 1, nLayers: 2, vocabSize: 261 };

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

/**
 * Asks for the bits of `rows` under the plan P2-D1-S0-E2, whatever the threads, the execution and the split of the
 * prompt.
 */
async function expectSameInPieces(
  file: string,
  activations: Activations,
  ids: number[],
  rows: Float32Array[],
): Promise<void> {
  for (const execution of ['wide', 'lanes'] as const) {
    const threaded = await loadModel(file, { threads: 3, kvCache: 'f32', activations, plan: 'P2-D1-S0-E2', execution });
    const session = threaded.createSession();
    await session.prefill(ids.slice(0, 7));
    expectSameBits([await session.prefill(ids.slice(7))], rows.slice(-1), execution);
    await threaded.dispose();
  }
}

/** One of the three likeliest, in turn, so that a text does not repeat itself. */
function pick(row: Float64Array, turn: number): number {
  const likeliest = Array.from(row.keys()).sort((a, b) => row[b]! - row[a]!);
  return likeliest[turn % 3 === 0 ? (turn % 2) + 1 : 0]!;
}

describe('the activations option', () => {
  const ids = someIds(20, shape.vocabSize);
  let file: string;
  let model: Model;
  beforeAll(async () => {
    file = writeRandomModel(path.join(folder, 'option.gguf'), { format: 'gguf', dtype: 'Q8_0', shape, seed: 47 });
    model = await loadModel(file, { threads: 1, kvCache: 'f32', activations: 'int8' });
  });
  afterAll(() => model.dispose());

  it('decides what sessions compute', async () => {
    const other = await loadModel(file, { threads: 1, kvCache: 'f32', activations: 'float32' });
    expect([other.activations, model.activations]).toEqual(['float32', 'int8']);
    const [exact, rounded] = [await other.createSession().prefill(ids), await model.createSession().prefill(ids)];
    const difference = maxDifference(exact, rounded);
    expect(difference).toBeGreaterThan(0);
    expect(difference).toBeLessThan(0.2);
    await other.dispose();
  });

  it.each<[DType, Activations]>([
    ['F32', 'float32'],
    ['F16', 'float32'],
    ['Q8_0', 'int8'],
    ['Q4_0', 'int8'],
    ['Q4_K', 'int8'],
    ['Q5_K', 'float32'],
    ['Q6_K', 'int8'],
  ])('is by default, for %s weights, %s', async (dtype, expected) => {
    const one = writeRandomModel(path.join(folder, `default-${dtype}.gguf`), {
      format: 'gguf',
      dtype,
      shape,
      seed: 59,
    });
    const [unsaid, said] = [
      await loadModel(one, { threads: 1 }),
      await loadModel(one, { threads: 1, activations: expected }),
    ];
    expect(unsaid.activations).toBe(expected);
    expectSameBits([await unsaid.createSession().prefill(ids)], [await said.createSession().prefill(ids)], dtype);
    await unsaid.dispose();
    await said.dispose();
  });

  it('goes by the larger part of the matrices, and is float32 on the cuda backend', () => {
    const matrix = (dtype: DType, byteLength: number, rows = 8) => ({ dtype, rows, byteLength });
    const choose = (
      choice: ActivationsChoice,
      backend: 'cpu' | 'cuda',
      matrices: Array<ReturnType<typeof matrix>>,
      bf16Products = true,
    ) => chooseActivations(choice, backend, matrices, () => ({ bf16Products }));
    expect(choose('auto', 'cpu', [matrix('Q4_K', 51), matrix('F16', 49)])).toBe('int8');
    expect(choose('auto', 'cpu', [matrix('Q8_0', 49), matrix('Q5_K', 51)])).toBe('float32');
    expect(choose('auto', 'cpu', [matrix('Q6_K', 2), matrix('F32', 99, 1)])).toBe('int8');
    expect(choose('auto', 'cpu', [matrix('BF16', 51), matrix('F16', 49)])).toBe('bf16');
    expect(choose('auto', 'cpu', [matrix('BF16', 51), matrix('F16', 49)], false)).toBe('float32');
    expect(choose('auto', 'cpu', [matrix('BF16', 49), matrix('F16', 51)])).toBe('float32');
    expect(choose('auto', 'cuda', [matrix('Q4_K', 1)])).toBe('float32');
    expect(choose('auto', 'cuda', [matrix('BF16', 1)])).toBe('float32');
    expect(choose('int8', 'cpu', [matrix('F16', 1)])).toBe('int8');
  });

  it('has the bits of a forward in pieces, with other threads and other executions', async () => {
    const rows = await decodeAll(model.createSession({ plan: 'P2-D1-S0-E2' }), ids);
    await expectSameInPieces(file, 'int8', ids, rows);
  });

  it('changes nothing where weights have no such products', async () => {
    const wide = writeRandomModel(path.join(folder, 'f16.gguf'), { format: 'gguf', dtype: 'F16', shape, seed: 53 });
    const logits = async (activations: Activations): Promise<Float32Array> => {
      const one = await loadModel(wide, { threads: 1, activations });
      const row = await one.createSession().prefill(ids);
      await one.dispose();
      return row;
    };
    const expected = await logits('float32');
    for (const rounded of ['bf16', 'int8'] as const) expectSameBits([await logits(rounded)], [expected], rounded);
  });

  it.each(['INT8', 'f32', '', 8, null])('refuses %j', async (activations) => {
    await expectRejection(
      'INVALID_ARGUMENT',
      loadModel(file, { activations: activations as Activations }),
      /^activations is .*; expected auto, float32, bf16 or int8\.$/,
    );
  });

  it.each(['bf16', 'int8'] as const)('%s is refused on the cuda backend', async (activations) => {
    await expectRejection(
      'INVALID_ARGUMENT',
      loadModel(file, { activations, backend: 'cuda' }),
      new RegExp(`^activations is '${activations}'; expected auto or float32 on the cuda backend\\.$`),
    );
  });
});

describe('the share of rounded products', () => {
  it('counts the bytes of matrices, not of vectors', () => {
    const tensor = (
      dtype: DType,
      rows: number,
      byteLength: number,
    ): { dtype: DType; rows: number; byteLength: number } => ({ dtype, rows, byteLength });
    expect(roundedShare('int8', [tensor('Q4_K', 8, 300), tensor('F16', 8, 100), tensor('F32', 1, 5000)])).toBe(0.75);
    expect(roundedShare('int8', [tensor('BF16', 8, 100), tensor('Q5_K', 8, 100)])).toBe(0);
    expect(roundedShare('bf16', [tensor('BF16', 8, 100), tensor('Q5_K', 8, 100)])).toBe(0.5);
  });
});
