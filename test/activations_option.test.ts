import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  chooseActivations,
  roundedShare,
  type Activations,
  type ActivationsChoice,
} from '../lib/engine/activations.js';
import type { DType } from '../lib/checkpoint/types.js';
import { loadModel } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import { decodeAll, expectSameBits, someIds } from './reference/engine.js';
import { maxDifference } from './reference/measure.js';
import { expectSameInPieces, SHAPE as shape } from './support/activations.js';
import { expectRejection } from './support/expect_code.js';
import { writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

const folder = tempFolder();

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
