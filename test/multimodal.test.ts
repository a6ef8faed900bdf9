import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { loadModel } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import { decodeAll, expectSameBits, someIds } from './reference/engine.js';
import { expectRejection } from './support/expect_code.js';
import { writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

const folder = tempFolder();
const SHAPE = { dim: 60, hiddenDim: 84, headDim: 10, nHeads: 8, nKvHeads: 4, nLayers: 7, vocabSize: 101 };
/** What Gemma 3's files leave to transformers. */
const LEFT_OUT = ['num_attention_heads', 'num_key_value_heads', 'model_type', 'architectures'];

interface Stored {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** The folder of a model of text as the part of one that also takes images, with tensors named so. */
function writeAsPart(name: string, text: string, rename: (tensor: string) => string, change: object = {}): string {
  const target = path.join(folder, name);
  mkdirSync(target);
  const config = JSON.parse(readFileSync(path.join(text, 'config.json'), 'utf8')) as Record<string, unknown>;
  const own = Object.fromEntries(Object.entries(config).filter(([key]) => !LEFT_OUT.includes(key)));
  writeFileSync(
    path.join(target, 'config.json'),
    JSON.stringify({
      architectures: ['Gemma3ForConditionalGeneration'],
      model_type: 'gemma3',
      eos_token_id: [1, 7],
      text_config: { model_type: 'gemma3_text', ...own },
      vision_config: { model_type: 'siglip_vision_model', hidden_size: 8, num_hidden_layers: 1 },
      ...change,
    }),
  );
  const weights = readFileSync(path.join(text, 'model.safetensors'));
  const length = Number(weights.readBigUInt64LE());
  const header = JSON.parse(weights.toString('utf8', 8, 8 + length)) as Record<string, Stored>;
  const data = weights.subarray(8 + length);
  const tensors = Object.fromEntries(Object.entries(header).map(([tensor, stored]) => [rename(tensor), stored]));
  const images = ['vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight', 'multi_modal_projector.weight'];
  images.forEach((tensor, i) => {
    const at = data.length + 16 * i;
    tensors[tensor] = { dtype: 'F32', shape: [2, 2], data_offsets: [at, at + 16] };
  });
  const text8 = Buffer.from(JSON.stringify(tensors));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text8.length));
  writeFileSync(path.join(target, 'model.safetensors'), Buffer.concat([size, text8, data, Buffer.alloc(32)]));
  return target;
}

describe('a model of text and images, gemma3', () => {
  const ids = someIds(20, SHAPE.vocabSize);
  const text = writeRandomModel(path.join(folder, 'text'), {
    format: 'huggingface',
    architecture: 'gemma3',
    shape: SHAPE,
    seed: 3,
  });
  const models: Model[] = [];
  afterAll(() => Promise.all(models.map((model) => model.dispose())));
  async function logitsOf(file: string): Promise<Float32Array[]> {
    const model = await loadModel(file, { threads: 1 });
    models.push(model);
    return decodeAll(model.createSession(), ids);
  }

  it.each<[string, (tensor: string) => string]>([
    ['language_model.model', (tensor) => tensor.replace(/^(model|lm_head)\./, 'language_model.$&')],
    ['model.language_model', (tensor) => tensor.replace(/^model\./, 'model.language_model.')],
  ])('computes as the model of text in it, with tensors named %s.*', async (name, rename) => {
    const whole = writeAsPart(name, text, rename);
    expectSameBits(await logitsOf(whole), await logitsOf(text), name);
    const { config, readEosTokenIds } = await openCheckpoint(whole);
    expect(config).toMatchObject({ architecture: 'gemma3', nHeads: 8, nKvHeads: 4 });
    expect(await readEosTokenIds()).toEqual([1, 7]);
  });

  it('is refused where its weights are quantized, and so are others of its kind', async () => {
    const quantized = writeAsPart('quantized', text, (tensor) => tensor, {
      quantization_config: { quant_method: 'awq' },
    });
    await expectRejection('UNSUPPORTED_MODEL', openCheckpoint(quantized), /quantized with "awq"/);
    const other = writeAsPart('other', text, (tensor) => tensor, { model_type: 'llava' });
    await expectRejection('UNSUPPORTED_MODEL', openCheckpoint(other), /of type "llava"; supported are/);
  });
});
