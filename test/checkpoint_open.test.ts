import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { readGguf } from '../lib/checkpoint/gguf.js';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { SYNTHETIC_SHAPES, syntheticCheckpoint } from '../lib/checkpoint/synthetic.js';
import type { Architecture, Checkpoint, DType } from '../lib/checkpoint/types.js';
import { readWeights } from './reference/weights.js';
import { array, ggufFile, text } from '../tools/gguf/gguf_writer.mjs';
import { shippedModelPath } from '../lib/model/load.js';
import { writeRandomModel } from './support/random_model.js';
import { describeShared, sharedData } from './support/shared_data.js';
import { tempFolder } from './support/temp_folder.js';
import { vocabularyFolder, vocabularySource } from './support/vocabularies.js';

const folder = tempFolder();
let made = 0;
const fresh = (extension = '') => path.join(folder, `${made++}${extension}`);

const parameters = (checkpoint: Checkpoint) => checkpoint.tensors.reduce((sum, { rows, cols }) => sum + rows * cols, 0);

describe('models of the repository', () => {
  const fixture = (name: string, ...parts: string[]): string => path.join(__dirname, 'fixtures', name, ...parts);

  it('opens the model that ships', async () => {
    const file = shippedModelPath();
    const checkpoint = await openCheckpoint(file);
    expect(checkpoint).toMatchObject({ format: 'gguf', path: file, files: [file] });
    expect(checkpoint.config).toMatchObject({
      architecture: 'llama',
      dim: 192,
      hiddenDim: 512,
      headDim: 64,
      nHeads: 3,
      nKvHeads: 1,
      nLayers: 24,
      vocabSize: 4096,
      ropeInterleaved: true,
    });
    expect(checkpoint.tensors).toHaveLength(24 * 9 + 2);
    expect(new Set(checkpoint.tensors.map(({ dtype }) => dtype))).toEqual(new Set(['Q8_0', 'F32']));
    expect((await checkpoint.readTokenizer()).kind).toBe('gguf');
  });

  it('opens a folder that transformers wrote, also by a file in it, with the vocabulary beside', async () => {
    const copy = fresh();
    mkdirSync(copy);
    for (const name of ['config.json', 'model.safetensors'])
      copyFileSync(fixture('llama-llama3', name), path.join(copy, name));
    for (const name of ['tokenizer.json', 'tokenizer_config.json'])
      copyFileSync(path.join(vocabularyFolder('llama-3'), name), path.join(copy, name));
    for (const name of ['', 'config.json', 'model.safetensors', 'tokenizer.json']) {
      const checkpoint = await openCheckpoint(path.join(copy, name));
      expect(checkpoint.config).toMatchObject({
        architecture: 'llama',
        dim: 32,
        headDim: 16,
        nLayers: 3,
        vocabSize: 96,
        ropeInterleaved: false,
        tiedEmbeddings: true,
      });
      expect(new Set(checkpoint.tensors.map(({ dtype }) => dtype))).toEqual(new Set(['BF16']));
      expect(await checkpoint.readTokenizer()).toEqual({ ...vocabularySource('llama-3'), chatTemplate: undefined });
    }
  });

  it('reads the metadata of a vocabulary without weights, which is no model', async () => {
    const file = fresh('.gguf');
    const metadata = {
      'general.architecture': text('llama'),
      'tokenizer.ggml.tokens': array('string', ['a', '▁b']),
      'tokenizer.ggml.scores': array('f32', [0, -1]),
    };
    writeFileSync(file, ggufFile({ metadata, tensors: [] }));
    const { metadata: found } = await readGguf(file);
    expect(found.get('tokenizer.ggml.tokens')).toHaveLength(2);
    expect(found.get('tokenizer.ggml.scores')).toBeInstanceOf(Float32Array);
    await expect(openCheckpoint(file)).rejects.toMatchObject({
      code: 'INVALID_CHECKPOINT',
      message: expect.stringContaining('no tensors'),
    });
  });
});

describeShared('real models', () => {
  const shape = { dim: 64, hiddenDim: 172, headDim: 8, nHeads: 8, nKvHeads: 4, nLayers: 5, vocabSize: 512 };

  it('opens the stories260K GGUF', async () => {
    const file = sharedData('models/stories260K/stories260Ktok512.gguf');
    const checkpoint = await openCheckpoint(file);
    expect(checkpoint).toMatchObject({ format: 'gguf', path: file, files: [file] });
    expect(checkpoint.config).toMatchObject({ ...shape, architecture: 'llama', ropeInterleaved: true });
    expect(checkpoint.tensors).toHaveLength(5 * 9 + 3);
    expect((await checkpoint.readTokenizer()).kind).toBe('gguf');
  });

  it('opens the same model as a Hugging Face folder, with the same weights', async () => {
    const checkpoint = await openCheckpoint(sharedData('models/stories260K/hf'));
    expect(checkpoint.config).toMatchObject({ ...shape, ropeInterleaved: false, tiedEmbeddings: true });
    const gguf = readWeights(await openCheckpoint(sharedData('models/stories260K/stories260Ktok512.gguf')));
    const folderWeights = readWeights(checkpoint);
    for (const role of ['wv', 'wo', 'w_gate', 'w_up', 'w_down', 'mlp_norm'] as const)
      expect(folderWeights(role, 3)).toEqual(gguf(role, 3));
  });

  it('opens babyllama, also by a file in its folder', async () => {
    for (const name of ['', 'config.json', 'model.safetensors', 'tokenizer.json']) {
      const checkpoint = await openCheckpoint(sharedData('models/babyllama-tok105/hf', name));
      expect(checkpoint.config).toMatchObject({ dim: 128, nLayers: 5, vocabSize: 105 });
      expect((await checkpoint.readTokenizer()).kind).toBe('huggingface');
    }
  });

  it('opens the 16-layer story model', async () => {
    const checkpoint = await openCheckpoint(sharedData('models/stories-16l'));
    expect(checkpoint.config).toMatchObject({ nLayers: 16, headDim: 32, nHeads: 4, nKvHeads: 2, vocabSize: 2048 });
    expect(new Set(checkpoint.tensors.map(({ dtype }) => dtype))).toEqual(new Set(['BF16']));
    expect(await checkpoint.readTokenizer()).toMatchObject({
      kind: 'huggingface',
      generationConfig: expect.anything(),
    });
  });

  it('reads vocabulary-only files as GGUF but not as models', async () => {
    const file = sharedData('tokenizers/llamacpp-vocab/ggml-vocab-llama-spm.gguf');
    const { metadata } = await readGguf(file);
    expect(metadata.get('tokenizer.ggml.tokens')).toHaveLength(32000);
    expect(metadata.get('tokenizer.ggml.scores')).toBeInstanceOf(Float32Array);
    await expect(openCheckpoint(file)).rejects.toMatchObject({
      code: 'INVALID_CHECKPOINT',
      message: expect.stringContaining('no tensors'),
    });
  });
});

describe('random models', () => {
  const architectures: Architecture[] = ['llama', 'mistral', 'qwen2', 'qwen3'];

  for (const architecture of architectures) {
    for (const tied of [true, false]) {
      it(`${architecture}, ${tied ? 'tied' : 'untied'}: both formats describe the same model`, async () => {
        const options = { architecture, shape: { tied, headDim: 12 }, attentionBias: architecture === 'llama' };
        const huggingface = await openCheckpoint(writeRandomModel(fresh(), { ...options, format: 'huggingface' }));
        const gguf = await openCheckpoint(writeRandomModel(fresh('.gguf'), { ...options, format: 'gguf' }));
        const isLlama = architecture === 'llama' || architecture === 'mistral';
        expect(gguf.config).toEqual({
          ...huggingface.config,
          architecture: isLlama ? 'llama' : architecture,
          ropeInterleaved: isLlama,
          normEps: Math.fround(1e-5),
        });
        expect(gguf.tensors.map(({ role, layer, rows, cols }) => [role, layer, rows, cols])).toEqual(
          huggingface.tensors.map(({ role, layer, rows, cols }) => [role, layer, rows, cols]),
        );

        const [a, b] = [readWeights(huggingface), readWeights(gguf)];
        for (const { role, layer } of huggingface.tensors) {
          const permuted = isLlama && ['wq', 'wk', 'bq', 'bk'].includes(role);
          if (!permuted) expect(b(role, layer), role).toEqual(a(role, layer));
        }
        // Row 1 of an interleaved head is the partner of row 0, which otherwise stands half a head further.
        const row = (weights: typeof a, at: number) => weights('wq', 1)!.values.subarray(at * 32, (at + 1) * 32);
        if (isLlama) expect(row(b, 12 + 1)).toEqual(row(a, 12 + 6));
      });
    }
  }

  for (const dtype of ['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_K', 'Q5_K', 'Q6_K'] satisfies DType[]) {
    it(`GGUF in ${dtype}`, async () => {
      const shape = { dim: 256, hiddenDim: 256, nLayers: 1 };
      const { tensors } = await openCheckpoint(writeRandomModel(fresh('.gguf'), { format: 'gguf', dtype, shape }));
      expect(tensors.find(({ role }) => role === 'wo')).toMatchObject({ dtype, rows: 256, cols: 256 });
      expect(tensors.find(({ role }) => role === 'output_norm')).toMatchObject({ dtype: 'F32', rows: 1, cols: 256 });
    });
  }

  it('an output projection that is stored although embeddings are tied is left out', async () => {
    const checkpoint = await openCheckpoint(
      writeRandomModel(fresh(), {
        format: 'huggingface',
        shape: { tied: false },
        config: { tie_word_embeddings: true },
      }),
    );
    expect(checkpoint.tensors.some(({ role }) => role === 'output')).toBe(false);
  });

  it('the shapes for measurements have the parameter counts of the models they are named after', () => {
    const millions = Object.fromEntries(
      SYNTHETIC_SHAPES.map((name) => [name, Math.round(parameters(syntheticCheckpoint(name, 'BF16')) / 1e6)]),
    );
    expect(millions).toEqual({
      'smollm2-135m': 135,
      'llama-160m': 162,
      'tinyllama-1.1b': 1100,
      'llama-7b': 6738,
      'llama-13b': 13016,
      'llama-33b': 32529,
    });
    expect(() => syntheticCheckpoint('llama-8b', 'F16')).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    expect(() => syntheticCheckpoint('smollm2-135m', 'Q4_K')).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
    );
  });
});

describe('sharded models', () => {
  it('Hugging Face: every tensor comes from the shard the index names', async () => {
    const whole = readWeights(await openCheckpoint(writeRandomModel(fresh(), { format: 'huggingface' })));
    const sharded = await openCheckpoint(writeRandomModel(fresh(), { format: 'huggingface', shards: 3 }));
    expect(sharded.files).toHaveLength(3);
    const weights = readWeights(sharded);
    for (const { role, layer } of sharded.tensors) expect(weights(role, layer)).toEqual(whole(role, layer));
  });

  it('GGUF: any part opens the set', async () => {
    const first = writeRandomModel(fresh('.gguf'), { format: 'gguf', shards: 3 });
    const whole = readWeights(await openCheckpoint(writeRandomModel(fresh('.gguf'), { format: 'gguf' })));
    for (const part of [1, 2, 3]) {
      const checkpoint = await openCheckpoint(first.replace('00001', `0000${part}`));
      expect(checkpoint.files.map((file) => path.basename(file).slice(-20))).toEqual(
        [1, 2, 3].map((n) => `-0000${n}-of-00003.gguf`.slice(-20)),
      );
      expect(readWeights(checkpoint)('w_down', 2)).toEqual(whole('w_down', 2));
    }
  });
});

describe('what is not a model says so', () => {
  it('each kind of path', async () => {
    const folderWith = (files: Record<string, string | Buffer>) => {
      const target = fresh();
      mkdirSync(target);
      for (const [name, content] of Object.entries(files)) writeFileSync(path.join(target, name), content);
      return target;
    };
    const fileWith = (name: string, content: string | Buffer) => path.join(folderWith({ [name]: content }), name);
    const config = readFileSync(path.join(writeRandomModel(fresh(), { format: 'huggingface' }), 'config.json'));
    const cases: Array<[target: string, code: string, says: string]> = [
      [path.join(folder, 'nowhere'), 'FILE_NOT_FOUND', 'does not exist'],
      [folderWith({}), 'FILE_NOT_FOUND', 'no config.json'],
      [folderWith({ 'model.gguf': 'GGUF' }), 'FILE_NOT_FOUND', 'give the path of that file'],
      [folderWith({ 'adapter_config.json': '{}' }), 'FILE_NOT_FOUND', 'adapter'],
      [folderWith({ 'config.json': config }), 'FILE_NOT_FOUND', 'no weights'],
      [
        folderWith({ 'config.json': config, 'pytorch_model.bin': 'PK' }),
        'UNSUPPORTED_MODEL',
        'convert them to safetensors',
      ],
      [fileWith('model.gguf', 'PK\x03\x04 and a zip archive'), 'UNSUPPORTED_MODEL', 'PyTorch'],
      [fileWith('model.bin', 'tjgg and an old format'), 'UNSUPPORTED_MODEL', 'older than GGUF'],
      [fileWith('story.txt', 'Once upon a time there was a file.'), 'INVALID_CHECKPOINT', 'no model file'],
      [fileWith('model.gguf', ''), 'INVALID_CHECKPOINT', 'no model file'],
      [fileWith('model.safetensors', 'GGUF, but no more than that'), 'UNSUPPORTED_MODEL', 'GGUF version'],
    ];
    for (const [target, code, says] of cases) {
      await expect(openCheckpoint(target), target).rejects.toMatchObject({
        code,
        message: expect.stringContaining(says),
      });
    }
  });

  it('a GGUF file under another name still opens', async () => {
    const file = fresh('.bin');
    copyFileSync(writeRandomModel(fresh('.gguf'), { format: 'gguf' }), file);
    expect((await openCheckpoint(file)).format).toBe('gguf');
  });
});
