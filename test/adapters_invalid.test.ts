import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { mergedBytes, openLora } from '../lib/checkpoint/lora.js';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import type { Checkpoint, ModelConfig } from '../lib/checkpoint/types.js';
import { CqilError } from '../lib/errors.js';
import { loadModel } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import { resolvePlan } from '../lib/plan/plan.js';
import { encode } from './support/encode.js';
import { expectRejection } from './support/expect_code.js';
import { writeRandomLora, type RandomLoraOptions } from './support/lora_writer.js';
import { randomUniform } from './support/random.js';
import { ODD, writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

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
