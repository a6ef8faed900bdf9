import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { recoverPlan } from '../lib/analysis/recovery/recover_plan.js';
import { ARCHITECTURES } from '../lib/checkpoint/architectures.js';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { tensorTable } from '../lib/checkpoint/tensor_table.js';
import type { Architecture } from '../lib/checkpoint/types.js';
import { loadNative } from '../lib/engine/addon.js';
import { loadModel } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import { resolvePlan } from '../lib/plan/plan.js';
import { decodeAll, engineLogProbs, expectSameBits, someIds } from './reference/engine.js';
import {
  logSoftmax,
  referenceLogProbs,
  referenceModel,
  referenceTrace,
  SEQUENTIAL,
  type ReferenceModel,
  type ReferencePlan,
} from './reference/forward.js';
import { klDivergence, maxDifference } from './reference/measure.js';
import { writeRandomModel, type RandomModelOptions } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

const TOLERANCE = 1e-4;
const LAYERS = 7;
/** Seven layers have windows and whole attention, and rotated ones and others, wherever a family has both. */
const SHAPE = { dim: 60, hiddenDim: 84, headDim: 10, nHeads: 6, nKvHeads: 3, nLayers: LAYERS, vocabSize: 101 };
const PLANS: ReferencePlan[] = [
  SEQUENTIAL,
  ...[0, 1, 2].flatMap((bypass) =>
    (['paper', 'official'] as const).map((bypassMode) => ({
      groups: [
        [0, 1],
        [2, 3, 4],
        [5, 6],
      ],
      bypass,
      bypassMode,
    })),
  ),
];
/** Each with entries of its config.json that make every part of its formula show. */
const FAMILIES: Array<[Architecture, Record<string, unknown>]> = [
  ['gemma', { attention_bias: true }],
  ['gemma2', { query_pre_attn_scalar: 6 }],
  ['gemma3', { sliding_window_pattern: 3, rope_local_base_freq: 100, rope_scaling: { type: 'linear', factor: 8 } }],
  ['phi3', { partial_rotary_factor: 0.6, sliding_window: 5 }],
  ['granite', { rms_norm_eps: 1e-2 }],
  ['smollm3', { use_sliding_window: true, sliding_window: 6 }],
  [
    'ministral',
    {
      sliding_window: 6,
      layer_types: ['full', 'sliding', 'sliding', 'full', 'full', 'sliding', 'full'].map((kind) => `${kind}_attention`),
    },
  ],
];
const GGUF_FAMILIES = ['gemma', 'gemma2', 'gemma3', 'phi3', 'granite', 'smollm3'] as const;

const ids = someIds(24, SHAPE.vocabSize);
const folder = tempFolder();

function write(name: string, options: Partial<RandomModelOptions> & { architecture: Architecture }): string {
  return writeRandomModel(path.join(folder, name), { format: 'huggingface', shape: SHAPE, seed: 5, ...options });
}

function rows(flat: Float32Array, length: number): Float32Array[] {
  return Array.from({ length: flat.length / length }, (_, i) => flat.subarray(i * length, (i + 1) * length));
}

describe.each(FAMILIES)('%s on the engine', (architecture, config) => {
  const models: Model[] = [];
  let reference: ReferenceModel;

  beforeAll(async () => {
    const model = write(architecture, { architecture, config, attentionBias: config.attention_bias === true });
    reference = referenceModel(await openCheckpoint(model));
    for (const threads of [1, 3]) models.push(await loadModel(model, { threads }));
  });
  afterAll(() => Promise.all(models.map((model) => model.dispose())));

  function open(model: Model, { groups, bypass, bypassMode }: ReferencePlan, execution: 'wide' | 'lanes') {
    return model.createSession({ plan: { version: 1, layers: LAYERS, groups, bypass, bypassMode }, execution });
  }

  it.each(PLANS)('$groups D=$bypass $bypassMode: the formula, to the same bits in every way', async (plan) => {
    const expected = referenceLogProbs(reference, ids, plan);
    let first: Float32Array[] | undefined;
    for (const model of models) {
      for (const execution of ['wide', 'lanes'] as const) {
        const session = open(model, plan, execution);
        const decoded = await decodeAll(session, ids);
        first ??= decoded;
        expectSameBits(decoded, first, `${execution}, ${model.threads} threads`);
        // The same from a prompt in pieces, whose borders lie within windows and across them.
        session.truncate(0);
        const pieces = [1, 8, 2, 13];
        for (let at = 0; pieces.length > 0;) {
          const size = pieces.shift()!;
          const logits = await session.logits(ids.slice(at, at + size));
          at += size;
          expectSameBits(rows(logits, SHAPE.vocabSize), first.slice(at - size, at), `${execution}, a piece of ${size}`);
        }
        session.close();
      }
    }
    const worst = Math.max(...first!.map((row, i) => maxDifference(logSoftmax(row), expected[i]!)));
    expect(worst).toBeLessThan(TOLERANCE);
  });

  it('several texts in one forward have the bits of each alone', async () => {
    const together = vi.spyOn(loadNative(), 'forwardTogether');
    // Rows that begin in the first window, in a later one and where it has just moved on, of one token and of many.
    const texts = [0, 3, 5, 9, 17].map((start, i) => ({
      start,
      ids: someIds([12, 1, 2, 1, 7][i]!, SHAPE.vocabSize, i),
    }));
    for (const model of models) {
      for (const execution of ['wide', 'lanes'] as const) {
        const sessionsAt = async () => {
          const sessions = texts.map(() => open(model, PLANS[4]!, execution));
          for (const [i, { start }] of texts.entries()) if (start > 0) await sessions[i]!.prefill(ids.slice(0, start));
          return sessions;
        };
        const [apart, joined] = [await sessionsAt(), await sessionsAt()];
        const expected: Float32Array[] = [];
        for (const [i, text] of texts.entries()) expected.push(await apart[i]!.logits(text.ids));
        together.mockClear();
        const found = await Promise.all(texts.map((text, i) => joined[i]!.logits(text.ids)));
        expect(together.mock.calls.map(([calls]) => calls.length)).toEqual([texts.length]);
        expectSameBits(found, expected, `${execution}, ${model.threads} threads`);
        for (const session of [...apart, ...joined]) session.close();
      }
    }
    together.mockRestore();
  });

  it('is refused by what fits corrections of LLaMA alone', async () => {
    const [model, checkpoint] = [models[0]!, await openCheckpoint(path.join(folder, architecture))];
    const recovered = recoverPlan(model, checkpoint, resolvePlan('P2-S0-E4', LAYERS), ids, { rank: 1 });
    const other = ['gemma', 'gemma2', 'gemma3', 'granite'].includes(architecture);
    await expect(recovered).rejects.toMatchObject({ code: other ? 'UNSUPPORTED_MODEL' : 'INVALID_ARGUMENT' });
  });

  it('traces what each layer takes and what its blocks add', async () => {
    const plan = PLANS[4]!;
    const expected = referenceTrace(reference, ids, plan).flatMap(({ x, a, m }) => [x, a, m].flat());
    for (const model of models) {
      for (const execution of ['wide', 'lanes'] as const) {
        const session = open(model, plan, execution);
        rows(await session.trace(ids), SHAPE.dim).forEach((vector, i) => {
          const size = Math.max(1, ...expected[i]!.map(Math.abs));
          expect(maxDifference(vector, expected[i]!) / size, `vector ${i}`).toBeLessThan(TOLERANCE);
        });
        session.close();
      }
    }
  });
});

describe('tensors that hold several matrices', () => {
  it.each([
    ['huggingface', 'phi3-parts', 'huggingFace', 'model.layers.0.self_attn.qkv_proj.weight'],
    ['gguf', 'phi3-parts.gguf', 'gguf', 'blk.0.attn_qkv.weight'],
  ] as const)('of %s are cut where each begins, and refused where rows lack', async (format, file, names, name) => {
    const model = write(file, { architecture: 'phi3', format });
    const { tensors, config } = await openCheckpoint(model);
    const parts = tensors.filter((tensor) => tensor.name === name);
    expect(parts.map(({ role, rows: n }) => [role, n])).toEqual([
      ['wq', 60],
      ['wk', 30],
      ['wv', 30],
    ]);
    expect(parts.map(({ offset }) => offset - parts[0]!.offset)).toEqual([0, 60 * 60 * 4, 90 * 60 * 4]);
    const short = { name, type: 'F32', shape: [119, 60], file: 0, offset: 0 };
    const options = { qkvBias: false, outputBias: false, qkNorm: false };
    expect(() =>
      tensorTable([short], [{ path: model, size: 1e6 }], ARCHITECTURES.phi3.names[names], config, options),
    ).toThrow(`has tensor "${name}" of shape [119, 60]; [120, 60] is expected`);
  });
});

describe.each(GGUF_FAMILIES)('%s in GGUF', (architecture) => {
  it('is the model of the Hugging Face folder', async () => {
    const [given, gguf] = [write(`${architecture}-same`, { architecture, ropeTheta: 1e6 }), `${architecture}.gguf`];
    const file = write(gguf, { architecture, format: 'gguf', ropeTheta: 1e6 });
    const expected = referenceLogProbs(referenceModel(await openCheckpoint(given)), ids);
    const inFile = referenceLogProbs(referenceModel(await openCheckpoint(file)), ids);
    const model = await loadModel(file, { threads: 2 });
    const session = model.createSession();
    const ours = await engineLogProbs(session, ids);
    expect(Math.max(...inFile.map((row, i) => maxDifference(row, expected[i]!)))).toBeLessThan(1e-5);
    expect(Math.max(...ours.map((row, i) => maxDifference(row, expected[i]!)))).toBeLessThan(TOLERANCE);
    await model.dispose();
  });
});

describe('what multiplies rounded activations', () => {
  const shape = { ...SHAPE, dim: 64, hiddenDim: 96, headDim: 16, nHeads: 4, nKvHeads: 2 };

  it.each(GGUF_FAMILIES)('%s in Q8_0: near the same weights in float64', async (architecture) => {
    const file = write(`${architecture}-q8.gguf`, { architecture, format: 'gguf', dtype: 'Q8_0', shape });
    const expected = referenceLogProbs(referenceModel(await openCheckpoint(file)), ids);
    for (const [activations, kvCache, bound] of [
      ['float32', 'f32', 1e-8],
      ['int8', 'f16', 1e-3],
    ] as const) {
      const model = await loadModel(file, { threads: 2, activations });
      const ours = await engineLogProbs(model.createSession({ kvCache }), ids);
      const mean = ours.reduce((sum, row, i) => sum + klDivergence(expected[i]!, row), 0) / ids.length;
      expect(mean, activations).toBeLessThan(bound);
      await model.dispose();
    }
  });
});
