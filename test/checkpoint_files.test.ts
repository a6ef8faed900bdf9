import { copyFileSync, readFileSync, renameSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it, vi } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import type { Checkpoint, TensorRole } from '../lib/checkpoint/types.js';
import { array, ggufFile, text } from '../tools/gguf/gguf_writer.mjs';
import { readWeights } from './reference/weights.js';
import { expectRejection } from './support/expect_code.js';
import { writeRandomModel, type RandomModelOptions } from './support/random_model.js';
import { safetensorsFile } from './support/safetensors_writer.js';
import { tempFolder } from './support/temp_folder.js';

const folder = tempFolder();
let made = 0;
const fresh = (extension = '') => path.join(folder, `${made++}${extension}`);
const makeFolder = (options: Partial<RandomModelOptions> = {}) =>
  writeRandomModel(fresh(), { format: 'huggingface', ...options });
const makeGguf = (options: Partial<RandomModelOptions> = {}) =>
  writeRandomModel(fresh('.gguf'), { format: 'gguf', ...options });

/** A weight of a model, by which it is told from one of another seed. */
const sample = (checkpoint: Checkpoint, role: TensorRole = 'w_down') =>
  readWeights(checkpoint)(role, 1)!.values.slice(0, 4);
const opened = async (location: string) => sample(await openCheckpoint(location));

/** The files of one model in the folder of another, under other names. */
function addWeights(target: string, source: string, names: Record<string, string>): void {
  for (const [from, to] of Object.entries(names)) copyFileSync(path.join(source, from), path.join(target, to));
}

const SINGLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';

describe('a file of weights that is given is the one that is loaded', () => {
  it('beside others of the same model', async () => {
    const [own, tuned] = [makeFolder(), makeFolder({ seed: 2 })];
    const expected = [await opened(own), await opened(tuned)];
    addWeights(own, tuned, { [SINGLE]: 'finetuned.safetensors' });
    expect(await opened(own)).toEqual(expected[0]);
    expect(await opened(path.join(own, SINGLE))).toEqual(expected[0]);
    expect(await opened(path.join(own, 'finetuned.safetensors'))).toEqual(expected[1]);
    const checkpoint = await openCheckpoint(path.join(own, 'finetuned.safetensors'));
    expect(checkpoint).toMatchObject({
      path: path.join(own, 'finetuned.safetensors'),
      files: [path.join(own, 'finetuned.safetensors')],
    });
  });

  it('that does not fit the configuration beside it is refused', async () => {
    const own = makeFolder();
    addWeights(own, makeFolder({ shape: { dim: 16 } }), { [SINGLE]: 'other.safetensors' });
    await expectRejection('INVALID_CHECKPOINT', openCheckpoint(path.join(own, 'other.safetensors')), /is expected/);
    await expectRejection('FILE_NOT_FOUND', openCheckpoint(path.join(own, 'none.safetensors')), /does not exist/);
    rmSync(path.join(own, 'config.json'));
    await expectRejection('FILE_NOT_FOUND', openCheckpoint(path.join(own, SINGLE)), /no config\.json/);
  });

  it('a shard means the model that it is a part of, by the index or by the names', async () => {
    const [own, tuned] = [makeFolder({ shards: 2 }), makeFolder({ seed: 2, shards: 3 })];
    const expected = [await opened(own), await opened(tuned)];
    addWeights(
      own,
      tuned,
      Object.fromEntries(
        [1, 2, 3].map((n) => [`model-0000${n}-of-00003.safetensors`, `tuned-0000${n}-of-00003.safetensors`]),
      ),
    );
    expect(await opened(own)).toEqual(expected[0]);
    expect(await opened(path.join(own, 'model-00002-of-00002.safetensors'))).toEqual(expected[0]);
    expect(await opened(path.join(own, INDEX))).toEqual(expected[0]);
    expect(await opened(path.join(own, 'tuned-00003-of-00003.safetensors'))).toEqual(expected[1]);
    unlinkSync(path.join(own, 'tuned-00002-of-00003.safetensors'));
    await expectRejection(
      'FILE_NOT_FOUND',
      openCheckpoint(path.join(own, 'tuned-00003-of-00003.safetensors')),
      /tuned-00002-of-00003\.safetensors does not exist/,
    );
  });

  it('so is an index under another name', async () => {
    const own = makeFolder();
    const tuned = makeFolder({ seed: 2, shards: 2 });
    addWeights(own, tuned, {
      [INDEX]: 'tuned.safetensors.index.json',
      'model-00001-of-00002.safetensors': 'model-00001-of-00002.safetensors',
      'model-00002-of-00002.safetensors': 'model-00002-of-00002.safetensors',
    });
    expect(await opened(path.join(own, 'tuned.safetensors.index.json'))).toEqual(await opened(tuned));
    expect(await opened(path.join(own, 'model-00001-of-00002.safetensors'))).toEqual(await opened(tuned));
  });

  it('JSON that says nothing about weights is no model, except what every model of a folder shares', async () => {
    const own = makeFolder();
    for (const name of ['config.json', 'tokenizer.json', 'generation_config.json']) {
      copyFileSync(path.join(own, 'config.json'), path.join(own, `copy-${name}`));
      if (name !== 'config.json') copyFileSync(path.join(own, 'config.json'), path.join(own, name));
      expect(await opened(path.join(own, name))).toEqual(await opened(own));
      await expectRejection(
        'INVALID_CHECKPOINT',
        openCheckpoint(path.join(own, `copy-${name}`)),
        /no index of weights/,
      );
    }
  });
});

describe('a folder', () => {
  it('with one set of weights under other names has these', async () => {
    const own = makeFolder();
    const expected = await opened(own);
    renameSync(path.join(own, SINGLE), path.join(own, 'model-00001-of-00001.safetensors'));
    expect(await opened(own)).toEqual(expected);
    renameSync(path.join(own, 'model-00001-of-00001.safetensors'), path.join(own, 'Merged.SAFETENSORS'));
    expect(await opened(own)).toEqual(expected);
    const sharded = makeFolder({ shards: 3 });
    unlinkSync(path.join(sharded, INDEX));
    expect(await opened(sharded)).toEqual(expected);
  });

  it('with the weights of several and none named as usual asks for one', async () => {
    const own = makeFolder();
    addWeights(own, makeFolder({ seed: 2 }), { [SINGLE]: 'b.safetensors' });
    renameSync(path.join(own, SINGLE), path.join(own, 'a.safetensors'));
    await expectRejection(
      'INVALID_CHECKPOINT',
      openCheckpoint(own),
      /several models: "a\.safetensors", "b\.safetensors"; give the path of one/,
    );
    expect(await opened(path.join(own, 'b.safetensors'))).toHaveLength(4);
  });

  it('with an adapter or a consolidated copy beside the weights has the weights', async () => {
    const own = makeFolder();
    const expected = await opened(own);
    renameSync(path.join(own, SINGLE), path.join(own, 'merged.safetensors'));
    for (const name of ['adapter_model.safetensors', 'consolidated.safetensors'])
      writeFileSync(path.join(own, name), safetensorsFile([]));
    expect(await opened(own)).toEqual(expected);
    renameSync(path.join(own, 'merged.safetensors'), path.join(own, 'adapter-merged.safetensors'));
    expect(await opened(own)).toEqual(expected);
    expect(await opened(path.join(own, 'adapter-merged.safetensors'))).toEqual(expected);
  });
});

describe('what other tools make is refused by name', () => {
  const without = (name: string, files: Record<string, string | Buffer>): string => {
    const own = makeFolder();
    rmSync(path.join(own, name));
    for (const [file, content] of Object.entries(files)) writeFileSync(path.join(own, file), content);
    return own;
  };
  const entry = (name: string) => safetensorsFile([{ name, dtype: 'F32', shape: [1], data: Buffer.alloc(4) }]);
  const inFolder = (name: string, content: string | Buffer) => path.join(without(SINGLE, { [name]: content }), name);

  it.each<[string, () => string, string, RegExp]>([
    [
      'a consolidated checkpoint',
      () => without(SINGLE, { 'consolidated.safetensors': entry('layers.0.attention.wq.weight') }),
      'UNSUPPORTED_MODEL',
      /consolidated checkpoint .* convert it/,
    ],
    [
      'its file under another name',
      () => inFolder('mistral.safetensors', entry('tok_embeddings.weight')),
      'UNSUPPORTED_MODEL',
      /consolidated checkpoint/,
    ],
    [
      'one without config.json',
      () => without('config.json', { 'consolidated.00.pth': '', 'params.json': '{}' }),
      'UNSUPPORTED_MODEL',
      /consolidated checkpoint \("consolidated\.00\.pth"\)/,
    ],
    [
      'quantized MLX weights',
      () =>
        makeFolder({
          config: { quantization: { group_size: 64, bits: 4 }, quantization_config: { group_size: 64, bits: 4 } },
        }),
      'UNSUPPORTED_MODEL',
      /quantized with MLX/,
    ],
    [
      'quantized weights of another tool',
      () => makeFolder({ config: { quantization_config: { quant_method: 'awq' } } }),
      'UNSUPPORTED_MODEL',
      /quantized with "awq"/,
    ],
    [
      'MLX weights as NumPy keeps them',
      () => without(SINGLE, { 'weights.npz': 'PK' }),
      'UNSUPPORTED_MODEL',
      /MLX file \("weights\.npz"\)/,
    ],
    [
      'the file of such',
      () => inFolder('weights.npz', Buffer.from('PK\x03\x04123456789')),
      'UNSUPPORTED_MODEL',
      /is an MLX file/,
    ],
    [
      'an adapter in the place of a model',
      () => inFolder('adapter_model.safetensors', entry('a')),
      'INVALID_CHECKPOINT',
      /belongs to an adapter/,
    ],
    [
      'its configuration',
      () => inFolder('adapter_config.json', '{"peft_type": "LORA"}'),
      'INVALID_CHECKPOINT',
      /belongs to an adapter/,
    ],
    [
      'a folder of GGUF files',
      () => without('config.json', { 'a-Q8_0.GGUF': '', 'b-Q4_0.gguf': '' }),
      'FILE_NOT_FOUND',
      /has "a-Q8_0\.GGUF", "b-Q4_0\.gguf"; give the path of one of these/,
    ],
    [
      'a folder with config.json and a GGUF file',
      () => without(SINGLE, { 'b.gguf': '' }),
      'FILE_NOT_FOUND',
      /has "b\.gguf"; give the path of that file/,
    ],
  ])('%s', async (_, make, code, says) => {
    await expectRejection(code as 'FILE_NOT_FOUND', openCheckpoint(make()), says);
  });
});

describe('JSON as Python and Windows write it', () => {
  const edited = (file: string, change: (text: string) => string | Buffer): string => {
    const own = makeFolder();
    writeFileSync(path.join(own, file), change(readFileSync(path.join(own, file), 'utf8')));
    return own;
  };
  const inConfig = (fields: string) => edited('config.json', (json) => json.replace('{', `{${fields},`));

  it('has a byte order mark, or not', async () => {
    const expected = await opened(makeFolder());
    const own = edited('config.json', (json) => `\ufeff${json}`);
    expect(await opened(own)).toEqual(expected);
    expect(await opened(path.join(own, 'config.json'))).toEqual(expected);
    for (const name of ['tokenizer.json', 'tokenizer_config.json'])
      writeFileSync(path.join(own, name), '\ufeff{"a": "\ufeff"}');
    expect(await (await openCheckpoint(own)).readTokenizer()).toMatchObject({
      json: { a: '\ufeff' },
      config: { a: '\ufeff' },
    });
  });

  it('has NaN and infinities where numbers may stand, and such words in strings', async () => {
    const own = inConfig(
      '"time_step_limit": [0.0, Infinity, -Infinity, NaN], "note": "NaN, \\"Infinity\\" \\\\", "NaN": 1',
    );
    expect(await opened(own)).toEqual(await opened(makeFolder()));
    await expectRejection(
      'INVALID_CHECKPOINT',
      openCheckpoint(edited('config.json', (json) => json.replace(/"rms_norm_eps":[^,]+/, '"rms_norm_eps":NaN'))),
      /"rms_norm_eps": NaN; a number/,
    );
    await expectRejection(
      'INVALID_CHECKPOINT',
      openCheckpoint(edited('config.json', (json) => json.replace(/"rope_theta":[^,]+/, '"rope_theta":-Infinity'))),
      /"rope_theta": -Infinity; a number/,
    );
  });

  it('is refused where it is something else', async () => {
    await expectRejection(
      'INVALID_CHECKPOINT',
      openCheckpoint(edited('config.json', (json) => Buffer.from(`\ufeff${json}`, 'utf16le'))),
      /config\.json is UTF-16 text; UTF-8 is expected/,
    );
    await expectRejection('INVALID_CHECKPOINT', openCheckpoint(inConfig('"x": NaNs')), /not valid JSON/);
    await expectRejection('INVALID_CHECKPOINT', openCheckpoint(inConfig('"x": NaN NaN')), /not valid JSON/);
    await expectRejection(
      'INVALID_CHECKPOINT',
      openCheckpoint(edited('config.json', () => Buffer.from('{"model_type": "ll\xe4ma"}', 'latin1'))),
      /is not UTF-8/,
    );
    await expectRejection('INVALID_CHECKPOINT', openCheckpoint(edited('config.json', () => '')), /it is empty/);
  });
});

describe('GGUF files', () => {
  it('may have upper-case names, whole or in parts', async () => {
    const file = makeGguf();
    const upper = file.replace('.gguf', '-X.GGUF');
    renameSync(file, upper);
    expect(await opened(upper)).toHaveLength(4);
    const first = makeGguf({ shards: 2 });
    for (const part of [1, 2])
      renameSync(
        first.replace('00001', `0000${part}`),
        first.replace('00001', `0000${part}`).replace('.gguf', '.GGUF'),
      );
    expect((await openCheckpoint(first.replace('.gguf', '.GGUF'))).files).toHaveLength(2);
  });

  it('are not spoiled by tensors of no elements, nor by other bytes that mean true', async () => {
    const bytes = readFileSync(
      makeGguf({ metadata: { a: { type: 'bool', value: true }, b: array('bool', [true, false]) } }),
    );
    bytes.writeUInt8(255, bytes.indexOf(Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, ...Buffer.from('a'), 7, 0, 0, 0])) + 13);
    const file = fresh('.gguf');
    writeFileSync(file, bytes);
    expect(await opened(file)).toHaveLength(4);

    const empty = ['blk.1.attn_k.scales', 'blk.9.attn_q.weight', 'rope_factors'].map((name) => ({
      name,
      type: 0,
      shape: [0, 4],
      data: Buffer.alloc(0),
    }));
    const vector = { name: 'a', type: 0, shape: [], data: Buffer.alloc(4) };
    writeFileSync(file, ggufFile({ metadata: { 'general.architecture': text('llama') }, tensors: [...empty, vector] }));
    await expectRejection('INVALID_CHECKPOINT', openCheckpoint(file), /embedding_length/);
  });

  it('keep a model beside a tensor of no elements', async () => {
    const bytes = readFileSync(makeGguf());
    // One more entry of the table, before the first; its offset and that of the data stay as they are.
    const name = 'token_embd.weight';
    const at = bytes.indexOf(name) - 8;
    const extra = Buffer.alloc(8 + 20 + 4 + 8 + 4 + 8);
    extra.writeBigUInt64LE(20n, 0);
    extra.write('blk.1.attn_rot.bias2', 8);
    extra.writeUInt32LE(1, 28);
    const tensors = Number(bytes.readBigUInt64LE(8));
    const table = tableEnd(bytes, at, tensors);
    bytes.writeBigUInt64LE(BigInt(tensors + 1), 8);
    const head = Buffer.concat([bytes.subarray(0, at), extra, bytes.subarray(at, table)]);
    const file = fresh('.gguf');
    writeFileSync(
      file,
      Buffer.concat([head, Buffer.alloc((32 - (head.length % 32)) % 32), bytes.subarray(Math.ceil(table / 32) * 32)]),
    );
    expect(await opened(file)).toEqual(await opened(makeGguf()));
  });
});

/** Where the table of tensors that begins at a byte ends. */
function tableEnd(bytes: Buffer, at: number, tensors: number): number {
  for (let i = 0; i < tensors; i++) {
    at += 8 + Number(bytes.readBigUInt64LE(at));
    at += 4 + 8 * bytes.readUInt32LE(at) + 4 + 8;
  }
  return at;
}

describe('locations', () => {
  it('that are relative are refused in a folder that is gone, and others are found', async () => {
    vi.spyOn(process, 'cwd').mockImplementation(() => {
      throw new Error('ENOENT: no such file or directory, uv_cwd');
    });
    try {
      await expectRejection('FILE_NOT_FOUND', openCheckpoint('a.gguf'), /a\.gguf, in a current folder that cannot be/);
      expect((await openCheckpoint(makeGguf())).config.nLayers).toBeGreaterThan(0);
    } finally {
      vi.restoreAllMocks();
    }
  });

  it('may be file: URLs, as objects or text', async () => {
    for (const location of [makeFolder(), makeGguf(), makeFolder({ shards: 2 })]) {
      const url = pathToFileURL(location);
      for (const given of [url, url.href, { href: url.href, protocol: url.protocol }])
        expect((await openCheckpoint(given)).path).toBe(location);
    }
  });

  it('that are no files are refused', async () => {
    await expectRejection(
      'INVALID_ARGUMENT',
      openCheckpoint('https://example.org/model.gguf'),
      /https:\/\/example\.org\/model\.gguf, which is no file on this machine/,
    );
    await expectRejection('INVALID_ARGUMENT', openCheckpoint(new URL('hf://a/b')), /no file on this machine/);
    await expectRejection('INVALID_ARGUMENT', openCheckpoint('file://other-host/a%2fb'), /which is no path here/);
    await expectRejection('INVALID_ARGUMENT', openCheckpoint({} as URL), /expected a path or a file: URL/);
  });
});
