import { rmSync, utimesSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { mergedBytes, openLora } from '../lib/checkpoint/lora.js';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import type { DType } from '../lib/checkpoint/types.js';
import { comparePlans } from '../lib/analysis/eval/compare_plans.js';
import { loadModel, loadSyntheticModel } from '../lib/model/load.js';
import { resolvePlan } from '../lib/plan/plan.js';
import { expectCode, expectRejection } from './support/expect_code.js';
import { addUpdates, writeRandomLora, type RandomLoraOptions } from './support/lora_writer.js';
import { ODD, writeRandomModel, type RandomModelOptions } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';
import { decodeAll, engineLogProbs, expectSameBits, someIds } from './reference/engine.js';
import { referenceLogProbs, referenceModel, SEQUENTIAL } from './reference/forward.js';
import { maxDifference } from './reference/measure.js';

const PLAN = {
  groups: [
    [1, 2],
    [3, 4],
  ],
  bypass: 1,
  bypassMode: 'official',
} as const;
const BLOCKS = { dim: 256, hiddenDim: 256, headDim: 64, nHeads: 4, nKvHeads: 2, nLayers: 5, vocabSize: 67 };

describe('a plan with an adapter', () => {
  const folder = tempFolder();
  let files = 0;

  function adaptedPlan(adapter: string) {
    return { ...PLAN, groups: PLAN.groups.map((group) => [...group]), adapter };
  }

  /**
   * Largest difference in log-probability between engine and float64, with the adapter and, on the same loaded model,
   * without.
   */
  async function differences(
    model: RandomModelOptions,
    lora: RandomLoraOptions = {},
  ): Promise<{ adapted: number; plain: number; moved: number }> {
    const name = `${files++}`;
    const file = writeRandomModel(path.join(folder, model.format === 'gguf' ? `${name}.gguf` : name), model);
    const checkpoint = await openCheckpoint(file);
    const updates = writeRandomLora(path.join(folder, `${name}-lora`), checkpoint.config, lora);
    const ids = someIds(11, checkpoint.config.vocabSize);
    const plan = adaptedPlan(path.join(folder, `${name}-lora`));
    const reference = referenceModel(checkpoint);
    const merged = {
      ...reference,
      weights: addUpdates(reference.weights, updates, checkpoint.config, model.dtype ?? 'F32'),
    };
    const expected = referenceLogProbs(merged, ids, plan);
    const plain = referenceLogProbs(reference, ids);
    await using loaded = await loadModel(file, { plan, threads: 2, activations: 'float32' });
    const rows = await engineLogProbs(loaded.createSession(), ids);
    const without = await engineLogProbs(loaded.createSession({ plan: 'sequential' }), ids);
    const worst = (a: Float64Array[], b: Float64Array[]): number =>
      Math.max(...a.map((row, i) => maxDifference(row, b[i]!)));
    return {
      adapted: worst(rows, expected),
      plain: worst(without, plain),
      moved: worst(referenceLogProbs(reference, ids, plan), expected),
    };
  }

  it.each<[string, RandomModelOptions]>([
    ['llama, Hugging Face', { format: 'huggingface', shape: ODD }],
    ['llama, GGUF, whose q and k rows are interleaved', { format: 'gguf', shape: ODD }],
    ['mistral', { format: 'huggingface', architecture: 'mistral', shape: ODD }],
    ['qwen2, with biases', { format: 'huggingface', architecture: 'qwen2', shape: ODD }],
    ['qwen2, GGUF, whose rows are not', { format: 'gguf', architecture: 'qwen2', shape: ODD }],
    ['qwen3, with norms of q and k', { format: 'huggingface', architecture: 'qwen3', shape: ODD }],
  ])('computes the formula on W + (α/r)·B·A, and the model without it is as before: %s', async (_, model) => {
    const { adapted, plain, moved } = await differences(model);
    expect(adapted).toBeLessThan(1e-4);
    expect(plain).toBeLessThan(1e-4);
    expect(moved).toBeGreaterThan(0.1);
  });

  // Sums in float32 and in float64 that fall on different sides of a tie round apart: a few weights by one step.
  it.each<[RandomModelOptions['format'], DType]>([
    ['huggingface', 'F16'],
    ['huggingface', 'BF16'],
    ['gguf', 'F16'],
    ['gguf', 'Q8_0'],
    ['gguf', 'Q4_0'],
    ['gguf', 'Q4_K'],
    ['gguf', 'Q5_K'],
    ['gguf', 'Q6_K'],
  ])('merges into %s %s and rounds once, to its own format or to Q8_0', async (format, dtype) => {
    const { adapted, plain, moved } = await differences({ format, dtype, shape: BLOCKS });
    expect(adapted).toBeLessThan(dtype.endsWith('F16') ? 1e-3 : 5e-3);
    expect(plain).toBeLessThan(1e-4);
    expect(moved).toBeGreaterThan(0.1);
  });

  it.each<[string, RandomLoraOptions]>([
    ['F16 weights', { dtype: 'F16' }],
    ['BF16 weights', { dtype: 'BF16' }],
    ['some projections', { roles: ['wq', 'wo', 'w_up'] }],
    ['some layers', { layers: [1, 4], roles: ['w_down'] }],
    ["the authors' rank and scale", { rank: 32, alpha: 32 }],
    ['a rank-stabilized scale', { rank: 8, alpha: 4, config: { use_rslora: true } }],
    ['modules given by a pattern', { config: { target_modules: '.*_proj' } }],
    [
      'modules that are excluded',
      { roles: ['wq', 'wk'], config: { target_modules: ['q_proj', 'k_proj', 'v_proj'], exclude_modules: ['v_proj'] } },
    ],
    [
      'modules named in full',
      {
        roles: ['wv'],
        layers: [2],
        config: { target_modules: ['model.layers.2.self_attn.v_proj'], layers_to_transform: null },
      },
    ],
    [
      'the least a configuration may say',
      {
        config: Object.fromEntries(
          ['alpha_pattern', 'rank_pattern', 'bias', 'use_dora', 'loftq_config', 'layers_to_transform'].map((key) => [
            key,
            undefined,
          ]),
        ),
      },
    ],
  ])('takes %s', async (_, lora) => {
    const { adapted, moved } = await differences({ format: 'huggingface', shape: ODD }, lora);
    expect(adapted).toBeLessThan(1e-4);
    expect(moved).toBeGreaterThan(1e-2);
  });

  it.each<DType>(['Q8_0', 'Q4_0', 'Q6_K'])(
    'multiplies %s weights with int8 activations too, those it does not touch where the model has them',
    async (dtype) => {
      const file = writeRandomModel(path.join(folder, `int8-${dtype}.gguf`), { format: 'gguf', dtype, shape: BLOCKS });
      const { config } = await openCheckpoint(file);
      writeRandomLora(path.join(folder, `int8-${dtype}-lora`), config, { roles: ['wq', 'w_down'], layers: [1, 4] });
      const plan = adaptedPlan(path.join(folder, `int8-${dtype}-lora`));
      const ids = someIds(13, config.vocabSize);
      const rows = async (activations: 'float32' | 'int8', threads: number): Promise<Float32Array[][]> => {
        await using loaded = await loadModel(file, { plan, threads, activations });
        return [
          await decodeAll(loaded.createSession(), ids),
          await decodeAll(loaded.createSession({ plan: 'sequential' }), ids),
        ];
      };
      const [exact, rounded, threaded] = [await rows('float32', 1), await rows('int8', 1), await rows('int8', 3)];
      for (const plans of [0, 1]) {
        const differences = exact[plans]!.map((row, i) => maxDifference(row, rounded[plans]![i]!));
        expect(Math.min(...differences)).toBeGreaterThan(0);
        expect(Math.max(...differences)).toBeLessThan(0.2);
        expectSameBits(threaded[plans]!, rounded[plans]!, dtype);
      }
    },
  );

  it('has the same bits in every execution, with any number of threads, and in any split of a prompt', async () => {
    const model = writeRandomModel(path.join(folder, 'bits'), { format: 'huggingface', dtype: 'BF16', shape: ODD });
    const { config } = await openCheckpoint(model);
    writeRandomLora(path.join(folder, 'bits-lora'), config);
    const plan = adaptedPlan(path.join(folder, 'bits-lora'));
    const ids = someIds(13, config.vocabSize);
    let first: Float32Array[] | undefined;
    for (const threads of [1, 2, 3]) {
      await using loaded = await loadModel(model, { plan, threads });
      for (const execution of ['wide', 'lanes'] as const) {
        const rows = await decodeAll(loaded.createSession({ execution }), ids);
        expectSameBits(rows, (first ??= rows), `${execution}, ${threads} threads`);
        expectSameBits(
          [await loaded.createSession({ execution }).prefill(ids)],
          [first.at(-1)!],
          `${execution} prefill, ${threads} threads`,
        );
      }
    }
  });

  it('is compared with the sequential plan without it on one loaded model', async () => {
    const file = writeRandomModel(path.join(folder, 'eval'), { format: 'huggingface', shape: ODD });
    const { config } = await openCheckpoint(file);
    writeRandomLora(path.join(folder, 'eval-lora'), config, { seed: 5 });
    const reference = referenceModel(await openCheckpoint(file));
    await using model = await loadModel(file);
    const ids = someIds(24, config.vocabSize);
    const adapted = resolvePlan(adaptedPlan(path.join(folder, 'eval-lora')), config.nLayers);
    const plans = [
      resolvePlan('sequential', config.nLayers),
      adapted,
      resolvePlan({ ...adapted, adapter: undefined }, config.nLayers),
    ];
    const [sequential, withAdapter, without] = await comparePlans(model, plans, [{ ids, firstScored: 1 }]);
    const expected =
      -referenceLogProbs(reference, ids, SEQUENTIAL)
        .slice(0, -1)
        .reduce((sum, row, i) => sum + row[ids[i + 1]!]!, 0) /
      (ids.length - 1);
    expect(sequential!.nll).toBeCloseTo(expected, 5);
    expect(sequential!.kl.mean).toBe(0);
    expect(withAdapter!.kl.mean).toBeGreaterThan(0.01);
    expect(Math.abs(withAdapter!.nll - without!.nll)).toBeGreaterThan(0.01);
  });

  it('generates, is released, and is merged again when it is wanted again', async () => {
    const file = writeRandomModel(path.join(folder, 'life'), {
      format: 'gguf',
      shape: { ...ODD, vocabSize: 300 },
      vocabulary: true,
    });
    const { config } = await openCheckpoint(file);
    writeRandomLora(path.join(folder, 'life-lora'), config);
    const plan = adaptedPlan(path.join(folder, 'life-lora'));
    const model = await loadModel(file);
    expectCode('INVALID_PLAN', () => model.createSession({ plan }), /not merged yet.*model\.prepare/);
    const prompt = someIds(5, config.vocabSize);
    const { tokens } = await model.generate(prompt, { plan, temperature: 0, maxTokens: 6 });
    const session = model.createSession({ plan });
    const before = await session.prefill(prompt);
    model.release(plan);
    expectCode('INVALID_PLAN', () => model.createSession({ plan }), /not merged yet/);
    // The open session keeps its weights.
    session.truncate(0);
    expectSameBits([await session.prefill(prompt)], [before], 'after the release');
    await Promise.all([model.prepare(plan), model.prepare(plan)]);
    expect((await model.generate(prompt, { plan, temperature: 0, maxTokens: 6 })).tokens).toEqual(tokens);
    const merging = model.prepare(adaptedPlan(path.join(folder, 'eval-lora')));
    await model.dispose();
    await expectRejection('DISPOSED', merging);
    await expectRejection('DISPOSED', model.prepare(plan));
  });

  it('is read again when its files were written to; sessions keep the weights that they were made with', async () => {
    const file = writeRandomModel(path.join(folder, 'rewritten'), { format: 'huggingface', shape: ODD });
    const { config } = await openCheckpoint(file);
    const [adapter, other] = [path.join(folder, 'rewritten-lora'), path.join(folder, 'other-lora')];
    writeRandomLora(adapter, config, { seed: 1 });
    writeRandomLora(other, config, { seed: 2 });
    const plan = adaptedPlan(adapter);
    await using model = await loadModel(file);
    const ids = someIds(4, config.vocabSize);
    const logitsOf = async (wanted: typeof plan) => {
      await model.prepare(wanted);
      const session = model.createSession({ plan: wanted });
      return { session, logits: await session.prefill(ids) };
    };
    const first = await logitsOf(plan);
    expectSameBits([(await logitsOf(plan)).logits], [first.logits], 'files that are the same');
    writeRandomLora(adapter, config, { seed: 2 });
    // Another time, where the clock of the files is coarse.
    utimesSync(path.join(adapter, 'adapter_model.safetensors'), new Date(), new Date(Date.now() + 5000));
    const second = await logitsOf(plan);
    expectSameBits([second.logits], [(await logitsOf(adaptedPlan(other))).logits], 'files that were written to');
    expect(second.logits).not.toEqual(first.logits);
    for (const { session } of [first, second]) session.truncate(0);
    const together = await Promise.all([first, second].map(({ session }) => session.prefill(ids)));
    expectSameBits(together, [first.logits, second.logits], 'each with its own weights');
    rmSync(adapter, { recursive: true });
    expectSameBits([(await logitsOf(plan)).logits], [second.logits], 'files that are gone');
  });

  it('takes the memory it says, and gives it back', async () => {
    const file = writeRandomModel(path.join(folder, 'memory'), {
      format: 'huggingface',
      shape: { ...ODD, nLayers: 2, hiddenDim: 4096 },
    });
    const checkpoint = await openCheckpoint(file);
    writeRandomLora(path.join(folder, 'memory-lora'), checkpoint.config, { roles: ['w_gate', 'w_up', 'w_down'] });
    const bytes = mergedBytes(await openLora(path.join(folder, 'memory-lora'), checkpoint.config), checkpoint.tensors);
    expect(bytes).toBe(6 * 60 * 4096 * 4);
    await using model = await loadModel(file);
    const plan = { groups: [], adapter: path.join(folder, 'memory-lora') };
    const cycles = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++) {
        await model.prepare(plan);
        model.release(plan);
      }
    };
    await cycles(5);
    const before = process.memoryUsage.rss();
    await cycles(40);
    expect(process.memoryUsage.rss() - before).toBeLessThan((40 * bytes) / 3);
  });

  it('lies relative to its plan file', async () => {
    const file = writeRandomModel(path.join(folder, 'beside'), { format: 'huggingface', shape: ODD });
    const { config } = await openCheckpoint(file);
    writeRandomLora(path.join(folder, 'plans', 'lora'), config);
    const planFile = path.join(folder, 'plans', 'plan.json');
    writeFileSync(planFile, JSON.stringify(adaptedPlan('lora')));
    await using model = await loadModel(file, { plan: planFile });
    expect(model.plan.adapter).toBe(path.join(folder, 'plans', 'lora'));
    expect((await model.createSession().prefill([1, 2])).every(Number.isFinite)).toBe(true);
  });

  it('is refused on random weights and where it does not exist', async () => {
    const config = (
      await openCheckpoint(writeRandomModel(path.join(folder, 'other'), { format: 'huggingface', shape: ODD }))
    ).config;
    writeRandomLora(path.join(folder, 'other-lora'), config);
    await expectRejection(
      'INVALID_PLAN',
      loadSyntheticModel('llama-33b', { plan: { groups: [], adapter: path.join(folder, 'other-lora') } }),
      /random weights/,
    );
    await using synthetic = await loadSyntheticModel('smollm2-135m', { dtype: 'Q8_0' });
    await expectRejection(
      'INVALID_PLAN',
      synthetic.prepare({ groups: [], adapter: path.join(folder, 'other-lora') }),
      /random weights/,
    );
    await expectRejection(
      'FILE_NOT_FOUND',
      loadModel(path.join(folder, 'other'), { plan: { groups: [], adapter: path.join(folder, 'nowhere') } }),
      /adapter_config\.json/,
    );
  });
});
