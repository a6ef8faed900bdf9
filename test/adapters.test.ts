import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { mergedBytes, openLora } from '../lib/checkpoint/lora.js';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import type { Checkpoint, DType, ModelConfig } from '../lib/checkpoint/types.js';
import { CqilError } from '../lib/errors.js';
import { comparePlans } from '../lib/analysis/eval/compare_plans.js';
import { loadModel, loadSyntheticModel } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import { resolvePlan } from '../lib/plan/plan.js';
import { encode } from './support/encode.js';
import { expectCode, expectRejection } from './support/expect_code.js';
import { addUpdates, writeRandomLora, type RandomLoraOptions } from './support/lora_writer.js';
import { randomUniform } from './support/random.js';
import { writeRandomModel, type RandomModelOptions } from './support/random_model.js';
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
/** No size is a power of two; whole blocks only where a format needs them. */
const ODD = { dim: 60, hiddenDim: 84, headDim: 10, nHeads: 6, nKvHeads: 3, nLayers: 5, vocabSize: 101 };
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

/** Adapters that must be refused, by code and by what the message names. */
describe('an adapter that does not fit', () => {
  const folder = tempFolder();
  let checkpoint: Checkpoint;
  let config: ModelConfig;
  let files = 0;

  beforeAll(async () => {
    checkpoint = await openCheckpoint(
      writeRandomModel(path.join(folder, 'model'), { format: 'huggingface', shape: ODD }),
    );
    config = checkpoint.config;
  });

  function written(options: RandomLoraOptions): string {
    const adapter = path.join(folder, `lora-${files++}`);
    writeRandomLora(adapter, config, options);
    return adapter;
  }

  it.each<[string, Record<string, unknown>, RegExp]>([
    ['DoRA', { use_dora: true }, /DoRA/],
    [
      'an adapter of MLX',
      { peft_type: undefined, fine_tune_type: 'lora', lora_parameters: { rank: 8 } },
      /adapter of MLX/,
    ],
    ['a rank pattern', { rank_pattern: { q_proj: 4 } }, /rank_pattern/],
    ['an alpha pattern', { alpha_pattern: { q_proj: 4 } }, /alpha_pattern/],
    ['a bias', { bias: 'all' }, /"bias": "all"/],
    ['modules to save', { modules_to_save: ['lm_head'] }, /modules_to_save/],
    ['transposed weights', { fan_in_fan_out: true }, /fan_in_fan_out/],
    ['repeated layers', { layer_replication: [[0, 4]] }, /layer_replication/],
    ['another type', { peft_type: 'IA3' }, /"IA3"; "LORA" is supported/],
    ['a start from changed weights', { init_lora_weights: 'pissa' }, /"pissa"/],
    ['an embedding', { target_modules: ['q_proj', 'embed_tokens'] }, /"embed_tokens".*down_proj/],
    ['a field of the future', { use_swizzle: true }, /"use_swizzle".*does not know/],
  ])('is refused by name: %s', async (_, extra, message) => {
    await expectRejection('UNSUPPORTED_MODEL', openLora(written({ config: extra }), config), message);
  });

  it.each<[string, Record<string, unknown>, RegExp]>([
    ['no rank', { r: undefined }, /no "r"/],
    ['rank 0', { r: 0 }, /"r": 0/],
    ['an alpha that is no number', { lora_alpha: 'x' }, /"lora_alpha"/],
    ['modules that are no list', { target_modules: [] }, /"target_modules"/],
    ['a layer beyond the model', { layers_to_transform: [5] }, /5 layers: the adapter belongs to another model/],
    ['a layer that is none', { layers_to_transform: [0.5] }, /"layers_to_transform"/],
    [
      'a module without tensors',
      {
        layers_to_transform: null,
        target_modules: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
        r: 3,
      },
      /no tensors for model\.layers\.0\.self_attn\.wq|no tensors for model\.layers\.0\.self_attn\.q_proj/,
    ],
    [
      'a module that is not selected',
      { target_modules: ['q_proj'], layers_to_transform: [1] },
      /k_proj, which its configuration does not select/,
    ],
  ])('is refused as damaged: %s', async (_, extra, message) => {
    await expectRejection('INVALID_CHECKPOINT', openLora(written({ layers: [1], config: extra }), config), message);
  });

  it.each<[string, RandomLoraOptions['tensors'], 'INVALID_CHECKPOINT' | 'UNSUPPORTED_MODEL', RegExp]>([
    [
      'half of a pair',
      (entries) => entries.slice(1),
      'INVALID_CHECKPOINT',
      /no tensor ".*q_proj\.lora_A\.weight", the other half of ".*q_proj\.lora_B/,
    ],
    [
      'a tensor that is left over',
      (entries) => [...entries, { ...entries[0]!, name: 'base_model.model.lm_head.lora_A.weight' }],
      'UNSUPPORTED_MODEL',
      /lm_head/,
    ],
    [
      "DoRA's magnitudes",
      (entries) => [
        ...entries,
        { ...entries[0]!, name: entries[0]!.name.replace('lora_A.weight', 'lora_magnitude_vector') },
      ],
      'UNSUPPORTED_MODEL',
      /magnitude/,
    ],
    [
      'two names for one',
      (entries) => [...entries, { ...entries[0]!, name: entries[0]!.name.replace('model.layers', 'layers') }],
      'INVALID_CHECKPOINT',
      /mean the same/,
    ],
    [
      'another type',
      (entries) => entries.map((entry) => ({ ...entry, dtype: 'F64', data: Buffer.concat([entry.data, entry.data]) })),
      'UNSUPPORTED_MODEL',
      /"F64"; supported are F32, F16, BF16/,
    ],
    ['no tensors', () => [], 'INVALID_CHECKPOINT', /no tensors/],
  ])('is refused for its tensors: %s', async (_, tensors, code, message) => {
    await expectRejection(code, openLora(written({ tensors }), config), message);
  });

  it('is given by its folder, as a path or file: URL, and by no file', async () => {
    const adapter = path.join(folder, 'located');
    writeRandomLora(adapter, config);
    const opened = await openLora(adapter, config);
    expect(await openLora(pathToFileURL(adapter), config)).toEqual(opened);
    for (const given of [pathToFileURL(adapter), pathToFileURL(adapter).href])
      expect(resolvePlan({ groups: [], adapter: given }, 5).adapter).toBe(adapter);
    await expectRejection(
      'FILE_NOT_FOUND',
      openLora(path.join(adapter, 'adapter_model.safetensors'), config),
      /is a file; the folder of a PEFT LoRA adapter is expected/,
    );
    writeFileSync(path.join(adapter, 'adapter.GGUF'), 'GGUF');
    await expectRejection(
      'UNSUPPORTED_MODEL',
      openLora(path.join(adapter, 'adapter.GGUF'), config),
      /adapter as a GGUF file/,
    );
  });

  it('is refused with the tensor, its shape and the one expected when it belongs to another model', async () => {
    const adapter = path.join(folder, 'wider');
    writeRandomLora(adapter, { ...config, dim: 66 });
    await expectRejection(
      'INVALID_CHECKPOINT',
      openLora(adapter, config),
      /layers\.0\.self_attn\.q_proj\.lora_A\.weight" of shape \[3, 66\]; \[3, 60\] is expected/,
    );
    writeRandomLora(adapter, { ...config, nLayers: 7 });
    await expectRejection(
      'INVALID_CHECKPOINT',
      openLora(adapter, config),
      /layers\.5\..*5 layers: the adapter belongs to another model/,
    );
    writeRandomLora(adapter, config, { config: { r: 4 } });
    await expectRejection('INVALID_CHECKPOINT', openLora(adapter, config), /\[3, 60\]; \[4, 60\] is expected/);
  });

  it('is refused when a file is truncated, missing, of another kind or no JSON', async () => {
    const adapter = written({});
    const file = path.join(adapter, 'adapter_model.safetensors');
    const bytes = readFileSync(file);
    for (const length of [0, 7, 40, bytes.length - 1]) {
      writeFileSync(file, bytes.subarray(0, length));
      await expectRejection('INVALID_CHECKPOINT', openLora(adapter, config), /adapter_model\.safetensors/);
    }
    const only = path.join(folder, 'config-only');
    mkdirSync(only);
    await expectRejection('FILE_NOT_FOUND', openLora(only, config), /no adapter_config\.json/);
    copyFileSync(path.join(adapter, 'adapter_config.json'), path.join(only, 'adapter_config.json'));
    await expectRejection('FILE_NOT_FOUND', openLora(only, config), /no adapter_model\.safetensors/);
    writeFileSync(path.join(only, 'adapter_model.bin'), '');
    await expectRejection('UNSUPPORTED_MODEL', openLora(only, config), /adapter_model\.bin/);
    writeFileSync(path.join(only, 'adapter_config.json'), '{');
    await expectRejection('INVALID_CHECKPOINT', openLora(only, config), /not valid JSON/);
  });

  it('is refused with a code however its bytes are changed', async () => {
    const adapter = written({ roles: ['wq', 'w_down'], layers: [1] });
    const uniform = randomUniform(7);
    let refused = 0;
    for (const name of ['adapter_config.json', 'adapter_model.safetensors']) {
      const file = path.join(adapter, name);
      const bytes = readFileSync(file);
      for (let round = 0; round < 150; round++) {
        const changed = Buffer.from(bytes);
        // The header of the weights is what is parsed; all of the configuration is.
        const range = Math.min(bytes.length, 400);
        for (let i = 0; i < 1 + (round % 3); i++) changed[Math.floor(uniform() * range)] = Math.floor(uniform() * 256);
        writeFileSync(file, changed);
        const error: unknown = await openLora(adapter, config).then(
          () => undefined,
          (reason: unknown) => reason,
        );
        if (error === undefined) continue;
        expect(error).toBeInstanceOf(CqilError);
        refused++;
      }
      writeFileSync(file, bytes);
    }
    expect(refused).toBeGreaterThan(100);
    await expect(openLora(adapter, config)).resolves.toMatchObject({ rank: 3 });
  });

  it('counts the memory that merging takes', async () => {
    const adapter = await openLora(written({ roles: ['wv', 'w_down'], layers: [0, 1] }), config);
    expect(mergedBytes(adapter, checkpoint.tensors)).toBe(2 * 4 * (30 * 60 + 60 * 84));
    const small = writeRandomModel(path.join(folder, 'small.gguf'), {
      format: 'gguf',
      dtype: 'Q4_0',
      shape: { dim: 32, hiddenDim: 64, nLayers: 1 },
    });
    const q4 = await openCheckpoint(small);
    writeRandomLora(path.join(folder, 'small-lora'), q4.config, { roles: ['w_down'] });
    expect(mergedBytes(await openLora(path.join(folder, 'small-lora'), q4.config), q4.tensors)).toBe(32 * 2 * 34);
  });
});

describe('an adapter whose values are too large', () => {
  const folder = tempFolder();

  it('is refused with the layer and the format instead of computing infinities', async () => {
    const file = writeRandomModel(path.join(folder, 'model'), { format: 'huggingface', dtype: 'F16', shape: ODD });
    const { config } = await openCheckpoint(file);
    const huge = encode('F32', new Float64Array(3 * 60).fill(1e9));
    writeRandomLora(path.join(folder, 'lora'), config, {
      roles: ['wq'],
      layers: [2],
      tensors: ([a, b]) => [{ ...a!, data: huge }, b!],
    });
    let model: Model | undefined;
    await expectRejection(
      'INVALID_CHECKPOINT',
      loadModel(file, { plan: { groups: [], adapter: path.join(folder, 'lora') } }).then((loaded) => (model = loaded)),
      /layer 2 wq.*no finite F16/,
    );
    await model?.dispose();
  });
});
