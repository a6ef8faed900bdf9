import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { array, ggufFile, text, u32, type GgufContent, type GgufEntry } from '../tools/gguf/gguf_writer.mjs';
import { writeRandomModel, type RandomModelOptions } from './support/random_model.js';
import { safetensorsFile } from './support/safetensors_writer.js';
import { tempFolder } from './support/temp_folder.js';

const folder = tempFolder();
let made = 0;
const fresh = (extension = '') => path.join(folder, `${made++}${extension}`);
const makeGguf = (options: Partial<RandomModelOptions> = {}) =>
  writeRandomModel(fresh('.gguf'), { format: 'gguf', ...options });
const makeFolder = (options: Partial<RandomModelOptions> = {}) =>
  writeRandomModel(fresh(), { format: 'huggingface', ...options });

const writeBytes = (content: Buffer) => {
  const file = fresh('.gguf');
  writeFileSync(file, content);
  return file;
};

/** Changes the bytes of a file in place. */
function edit(file: string, change: (bytes: Buffer) => void): string {
  const bytes = readFileSync(file);
  change(bytes);
  writeFileSync(file, bytes);
  return file;
}

/** A whole model folder whose safetensors header is changed before it is written. */
function withHeader(change: (json: Record<string, any>) => unknown): string {
  const target = makeFolder();
  const file = path.join(target, 'model.safetensors');
  const bytes = readFileSync(file);
  const headerLength = Number(bytes.readBigUInt64LE());
  const json = JSON.parse(bytes.toString('utf8', 8, 8 + headerLength)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const data = bytes.subarray(8 + headerLength);
  const entries = Object.entries(json)
    .filter(([name]) => name !== '__metadata__')
    .map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [from, to],
        },
      ]) => ({ name, dtype, shape, data: data.subarray(from, to) }),
    );
  writeFileSync(
    file,
    safetensorsFile(entries, (header) => change(header) ?? header),
  );
  return target;
}

function editJson(target: string, file: string, change: (json: Record<string, any>) => void): string {
  const json = JSON.parse(readFileSync(path.join(target, file), 'utf8')) as Record<string, unknown>;
  change(json);
  writeFileSync(path.join(target, file), JSON.stringify(json));
  return target;
}

const INDEX = 'model.safetensors.index.json';
const Q_PROJ = 'model.layers.1.self_attn.q_proj.weight';
const onlyMetadata = (metadata: Record<string, GgufEntry>, rest: Partial<GgufContent> = {}) =>
  writeBytes(ggufFile({ metadata, tensors: [], ...rest }));
const rename = (json: Record<string, unknown>, from: string, to: string) => {
  json[to] = json[from];
  delete json[from];
};
const nest = (depth: number): GgufEntry => (depth === 0 ? array('u8', [1]) : array('array', [nest(depth - 1)]));
/** A file with nothing but zeros after what it holds, up to a size that could hold much. */
function longer(file: string): string {
  truncateSync(file, 126 << 20);
  return file;
}

const announcing = (tensors: number, entries: number) =>
  longer(
    edit(onlyMetadata({}), (bytes) => {
      bytes.writeBigUInt64LE(BigInt(tensors), 8);
      bytes.writeBigUInt64LE(BigInt(entries), 16);
    }),
  );
const tensor = (extra: object) => ({ name: 'a', type: 0, shape: [1], data: Buffer.alloc(4), ...extra });

describe('a broken checkpoint gives one coded error that names what is wrong', () => {
  const cases: Array<[what: string, make: () => string, code: string, says: string]> = [
    // GGUF: the header
    [
      'GGUF cut in the header',
      () => {
        const file = makeGguf();
        truncateSync(file, 100);
        return file;
      },
      'INVALID_CHECKPOINT',
      'bytes left in the file',
    ],
    [
      'GGUF cut in a name',
      () => {
        const file = makeGguf();
        truncateSync(file, readFileSync(file).indexOf('blk.2.ffn_down') + 5);
        return file;
      },
      'INVALID_CHECKPOINT',
      'ends before',
    ],
    [
      'GGUF cut in the data',
      () => {
        const file = makeGguf();
        truncateSync(file, readFileSync(file).length - 4000);
        return file;
      },
      'INVALID_CHECKPOINT',
      'truncated',
    ],
    ['GGUF version 1', () => edit(makeGguf(), (bytes) => bytes.writeUInt32LE(1, 4)), 'UNSUPPORTED_MODEL', 'version 1'],
    [
      'GGUF big-endian',
      () => edit(makeGguf(), (bytes) => bytes.writeUInt32BE(3, 4)),
      'UNSUPPORTED_MODEL',
      'big-endian',
    ],
    [
      'GGUF tensor count 2^40',
      () => edit(makeGguf(), (bytes) => bytes.writeBigUInt64LE(2n ** 40n, 8)),
      'INVALID_CHECKPOINT',
      'tensors',
    ],
    [
      'GGUF metadata count 2^64 − 1',
      () => edit(makeGguf(), (bytes) => bytes.writeBigUInt64LE(2n ** 64n - 1n, 16)),
      'INVALID_CHECKPOINT',
      '18446744073709551615',
    ],
    [
      'GGUF key length 2^50',
      () => edit(makeGguf(), (bytes) => bytes.writeBigUInt64LE(2n ** 50n, 24)),
      'INVALID_CHECKPOINT',
      'length',
    ],
    [
      'GGUF array length',
      () =>
        edit(onlyMetadata({ a: array('string', ['x', 'y']) }), (bytes) =>
          bytes.writeBigUInt64LE(2n ** 33n, 24 + 9 + 4 + 4),
        ),
      'INVALID_CHECKPOINT',
      'elements of "a"',
    ],
    [
      'GGUF unknown value type',
      () => edit(onlyMetadata({ a: u32(1) }), (bytes) => bytes.writeUInt32LE(13, 24 + 9)),
      'INVALID_CHECKPOINT',
      'value type 13',
    ],
    ['GGUF arrays nested 8 deep', () => onlyMetadata({ a: nest(8) }), 'INVALID_CHECKPOINT', 'nests'],
    [
      'GGUF key twice',
      () => edit(onlyMetadata({ a: u32(1), b: u32(1) }), (bytes) => bytes.write('a', bytes.lastIndexOf('b'))),
      'INVALID_CHECKPOINT',
      'twice',
    ],
    ['GGUF tensor twice', () => onlyMetadata({}, { tensors: [tensor({}), tensor({})] }), 'INVALID_CHECKPOINT', 'twice'],
    ['GGUF alignment 24', () => onlyMetadata({ 'general.alignment': u32(24) }), 'INVALID_CHECKPOINT', 'power of two'],
    [
      'GGUF alignment as text',
      () => onlyMetadata({ 'general.alignment': text('32') }),
      'INVALID_CHECKPOINT',
      'power of two',
    ],
    [
      'GGUF tensor of 5 dimensions',
      () => onlyMetadata({}, { tensors: [tensor({ shape: [1, 1, 1, 1, 1] })] }),
      'INVALID_CHECKPOINT',
      '5 dimensions',
    ],
    [
      'GGUF tensor of 0 rows that the model needs',
      () => edit(makeGguf(), (bytes) => bytes.writeBigUInt64LE(0n, bytes.indexOf('blk.0.ffn_up.weight') + 19 + 4)),
      'INVALID_CHECKPOINT',
      '[64, 32] is expected',
    ],
    ['GGUF of 3.4 million tensors', () => announcing(3_400_000, 0), 'INVALID_CHECKPOINT', 'announces 3400000 tensors'],
    [
      'GGUF of a million metadata entries',
      () => announcing(0, 1_000_000),
      'INVALID_CHECKPOINT',
      'announces 1000000 metadata entries',
    ],
    [
      'GGUF with ten million empty arrays',
      () =>
        longer(
          edit(onlyMetadata({ a: array('array', []) }), (bytes) => bytes.writeBigUInt64LE(10_000_000n, 24 + 9 + 4 + 4)),
        ),
      'INVALID_CHECKPOINT',
      'arrays inside arrays',
    ],
    [
      'GGUF adapter',
      () => makeGguf({ metadata: { 'general.type': text('adapter') } }),
      'UNSUPPORTED_MODEL',
      'type "adapter"',
    ],
    [
      'GGUF tensor of 2^60 elements',
      () => onlyMetadata({}, { tensors: [tensor({ shape: [2 ** 30, 2 ** 30] })] }),
      'INVALID_CHECKPOINT',
      'dimension',
    ],
    [
      'GGUF offset off the alignment',
      () =>
        edit(makeGguf(), (bytes) => bytes.writeBigUInt64LE(7n, bytes.indexOf('token_embd.weight') + 17 + 4 + 16 + 4)),
      'INVALID_CHECKPOINT',
      'alignment',
    ],
    // GGUF: the model
    [
      'GGUF tensors overlapping',
      () =>
        edit(makeGguf(), (bytes) => bytes.writeBigUInt64LE(0n, bytes.indexOf('output_norm.weight') + 18 + 4 + 8 + 4)),
      'INVALID_CHECKPOINT',
      'overlapping',
    ],
    [
      'GGUF Q4_1',
      () => edit(makeGguf(), (bytes) => bytes.writeUInt32LE(3, bytes.indexOf('blk.0.ffn_up.weight') + 19 + 4 + 16)),
      'UNSUPPORTED_MODEL',
      'Q4_1',
    ],
    [
      'GGUF unheard-of type',
      () => edit(makeGguf(), (bytes) => bytes.writeUInt32LE(99, bytes.indexOf('blk.0.ffn_up.weight') + 19 + 4 + 16)),
      'UNSUPPORTED_MODEL',
      'ggml type 99',
    ],
    [
      'GGUF norm in Q8_0',
      () => edit(makeGguf(), (bytes) => bytes.writeUInt32LE(8, bytes.indexOf('output_norm.weight') + 18 + 4 + 8)),
      'UNSUPPORTED_MODEL',
      'vector',
    ],
    [
      'GGUF rows of half a block',
      () =>
        edit(makeGguf({ shape: { dim: 24 } }), (bytes) =>
          bytes.writeUInt32LE(8, bytes.indexOf('blk.0.ffn_up.weight') + 19 + 4 + 16),
        ),
      'INVALID_CHECKPOINT',
      'multiple of 32',
    ],
    [
      'GGUF shape against its metadata',
      () => makeGguf({ metadata: { 'llama.feed_forward_length': u32(65) } }),
      'INVALID_CHECKPOINT',
      '[65, 32] is expected',
    ],
    [
      'GGUF with a layer too few',
      () => makeGguf({ metadata: { 'llama.block_count': u32(4) } }),
      'INVALID_CHECKPOINT',
      '"blk.3.',
    ],
    [
      'GGUF with a layer too many',
      () => makeGguf({ metadata: { 'llama.block_count': u32(2) } }),
      'INVALID_CHECKPOINT',
      '2 layers',
    ],
    [
      'GGUF with a bias in one layer only',
      () =>
        edit(makeGguf({ architecture: 'qwen2' }), (bytes) => bytes.write('blk.7', bytes.indexOf('blk.1.attn_k.bias'))),
      'INVALID_CHECKPOINT',
      '"blk.7.attn_k.bias"',
    ],
    [
      'GGUF with a tensor that changes the arithmetic',
      () => edit(makeGguf(), (bytes) => bytes.write('ffn_gorm', bytes.indexOf('blk.1.ffn_norm') + 6)),
      'UNSUPPORTED_MODEL',
      'ffn_gorm',
    ],
    [
      'GGUF without architecture',
      () => onlyMetadata({ a: u32(1) }, { tensors: [tensor({})] }),
      'INVALID_CHECKPOINT',
      'general.architecture',
    ],
    [
      'GGUF part missing',
      () => {
        const file = makeGguf({ shards: 3 });
        unlinkSync(file.replace('00001', '00003'));
        return file;
      },
      'FILE_NOT_FOUND',
      '-00003-of-00003.gguf',
    ],
    [
      'GGUF part renamed',
      () => {
        const file = makeGguf({ shards: 2 });
        const other = fresh('.gguf');
        writeFileSync(other, readFileSync(file));
        return other;
      },
      'INVALID_CHECKPOINT',
      '-00001-of-00002.gguf',
    ],
    [
      'GGUF parts exchanged',
      () => {
        const file = makeGguf({ shards: 3 });
        writeFileSync(file.replace('00001', '00002'), readFileSync(file.replace('00001', '00003')));
        return file;
      },
      'INVALID_CHECKPOINT',
      'part 3 of 3',
    ],
    // safetensors
    [
      'safetensors cut',
      () => {
        const target = makeFolder();
        const file = path.join(target, 'model.safetensors');
        truncateSync(file, readFileSync(file).length - 1);
        return target;
      },
      'INVALID_CHECKPOINT',
      'truncated',
    ],
    [
      'safetensors header longer than the file',
      () => edit(path.join(makeFolder(), 'model.safetensors'), (bytes) => bytes.writeUInt32LE(99_000_000)),
      'INVALID_CHECKPOINT',
      'ends before the header',
    ],
    [
      'safetensors header length 2^63',
      () => {
        const target = makeFolder();
        edit(path.join(target, 'model.safetensors'), (bytes) => bytes.writeBigUInt64LE(2n ** 63n));
        return target;
      },
      'INVALID_CHECKPOINT',
      '9223372036854775808',
    ],
    [
      'safetensors header no JSON',
      () => {
        const target = makeFolder();
        edit(path.join(target, 'model.safetensors'), (bytes) => bytes.write('}', 9));
        return target;
      },
      'INVALID_CHECKPOINT',
      'not valid JSON',
    ],
    [
      'safetensors header no UTF-8',
      () => {
        const target = makeFolder();
        edit(path.join(target, 'model.safetensors'), (bytes) => bytes.writeUInt8(0xff, 12));
        return target;
      },
      'INVALID_CHECKPOINT',
      'UTF-8',
    ],
    ['safetensors header no object', () => withHeader(() => [1]), 'INVALID_CHECKPOINT', 'an array'],
    [
      'safetensors entry no object',
      () => withHeader((json) => void (json[Q_PROJ] = null)),
      'INVALID_CHECKPOINT',
      'q_proj',
    ],
    [
      'safetensors shape negative',
      () => withHeader((json) => void (json[Q_PROJ].shape = [-32, -32])),
      'INVALID_CHECKPOINT',
      'wrongly',
    ],
    [
      'safetensors shape against bytes',
      () => withHeader((json) => void (json[Q_PROJ].shape = [32, 33])),
      'INVALID_CHECKPOINT',
      'takes 4224',
    ],
    [
      'safetensors offsets backwards',
      () => withHeader((json) => void json[Q_PROJ].data_offsets.reverse()),
      'INVALID_CHECKPOINT',
      'wrongly',
    ],
    [
      'safetensors overlapping',
      () =>
        withHeader(
          (json) => void (json[Q_PROJ].data_offsets = json['model.layers.0.self_attn.q_proj.weight'].data_offsets),
        ),
      'INVALID_CHECKPOINT',
      'overlapping',
    ],
    ['safetensors hole', () => withHeader((json) => void delete json[Q_PROJ]), 'INVALID_CHECKPOINT', 'hole'],
    [
      'safetensors type and shape changed together',
      () => withHeader((json) => void Object.assign(json[Q_PROJ], { dtype: 'F8_E4M3', shape: [32, 128] })),
      'INVALID_CHECKPOINT',
      '[32, 32] is expected',
    ],
    [
      'safetensors of half a million tensors',
      () =>
        withHeader((json) =>
          Object.assign(
            json,
            Object.fromEntries(
              Array.from({ length: 500_000 }, (_, i) => [`a${i}`, { dtype: 'F32', shape: [0], data_offsets: [0, 0] }]),
            ),
          ),
        ),
      'INVALID_CHECKPOINT',
      'arrays and objects',
    ],
    [
      'safetensors unheard-of type',
      () => withHeader((json) => void (json[Q_PROJ].dtype = 'F4')),
      'UNSUPPORTED_MODEL',
      '"F4"',
    ],
    [
      'a tensor missing',
      () => withHeader((json) => rename(json, Q_PROJ, 'other')),
      'INVALID_CHECKPOINT',
      `no tensor "${Q_PROJ}" of shape [32, 32]`,
    ],
    [
      'a tensor under both of its names',
      () => withHeader((json) => rename(json, 'lm_head.weight', 'embed_tokens.weight')),
      'INVALID_CHECKPOINT',
      'mean the same',
    ],
    [
      'a tensor of another architecture',
      () => withHeader((json) => rename(json, Q_PROJ, 'model.layers.1.pre_feedforward_layernorm.weight')),
      'UNSUPPORTED_MODEL',
      'pre_feedforward_layernorm',
    ],
    [
      'biases the configuration does not mention',
      () => makeFolder({ attentionBias: true, config: { attention_bias: false } }),
      'INVALID_CHECKPOINT',
      'bias',
    ],
    [
      'biases that are not there',
      () => makeFolder({ config: { attention_bias: true } }),
      'INVALID_CHECKPOINT',
      'q_proj.bias',
    ],
    [
      'no output projection',
      () => makeFolder({ shape: { tied: true }, config: { tie_word_embeddings: false } }),
      'INVALID_CHECKPOINT',
      'lm_head.weight',
    ],
    // config.json and the index
    [
      'config.json cut',
      () => {
        const target = makeFolder();
        truncateSync(path.join(target, 'config.json'), 20);
        return target;
      },
      'INVALID_CHECKPOINT',
      'not valid JSON',
    ],
    [
      'config.json of a million arrays',
      () =>
        editJson(makeFolder(), 'config.json', (json) => void (json.a = Array.from({ length: 1_000_000 }, () => []))),
      'INVALID_CHECKPOINT',
      'arrays and objects',
    ],
    [
      'config.json of 17 MB',
      () => {
        const target = makeFolder();
        truncateSync(path.join(target, 'config.json'), 17 * 2 ** 20);
        return target;
      },
      'INVALID_CHECKPOINT',
      'at most 16777216 are expected',
    ],
    [
      'config.json a folder',
      () => {
        const target = makeFolder();
        rmSync(path.join(target, 'config.json'));
        mkdirSync(path.join(target, 'config.json'));
        return target;
      },
      'FILE_NOT_FOUND',
      'not a regular file',
    ],
    [
      'shard missing',
      () => {
        const target = makeFolder({ shards: 3 });
        unlinkSync(path.join(target, 'model-00002-of-00003.safetensors'));
        return target;
      },
      'FILE_NOT_FOUND',
      'model-00002-of-00003.safetensors',
    ],
    [
      'tensor missing from its shard',
      () =>
        editJson(
          makeFolder({ shards: 2 }),
          INDEX,
          (json) => void (json.weight_map[Q_PROJ] = 'model-00002-of-00002.safetensors'),
        ),
      'INVALID_CHECKPOINT',
      Q_PROJ,
    ],
    [
      'shard outside the folder',
      () =>
        editJson(makeFolder({ shards: 2 }), INDEX, (json) => void (json.weight_map[Q_PROJ] = '../secret.safetensors')),
      'INVALID_CHECKPOINT',
      'same folder',
    ],
    [
      'shard of another kind',
      () => editJson(makeFolder({ shards: 2 }), INDEX, (json) => void (json.weight_map[Q_PROJ] = 'config.json')),
      'INVALID_CHECKPOINT',
      'same folder',
    ],
    [
      'index without a map',
      () => editJson(makeFolder({ shards: 2 }), INDEX, (json) => void (json.weight_map = [])),
      'INVALID_CHECKPOINT',
      'weight_map',
    ],
    [
      'index with an empty map',
      () => editJson(makeFolder({ shards: 2 }), INDEX, (json) => void (json.weight_map = {})),
      'INVALID_CHECKPOINT',
      'no tensors',
    ],
  ];

  it('a pipe in the place of a file does not hang', async ({ skip }) => {
    if (process.platform === 'win32') skip('another system: Windows has no named pipes in folders');
    const target = makeFolder();
    const file = path.join(target, 'model.safetensors');
    unlinkSync(file);
    execFileSync('mkfifo', [file]);
    await expect(openCheckpoint(target)).rejects.toMatchObject({
      code: 'FILE_NOT_FOUND',
      message: expect.stringContaining('not a regular file'),
    });
  });

  it.each(cases)('%s', async (_, make, code, says) => {
    await expect(openCheckpoint(make())).rejects.toMatchObject({
      name: 'CqilError',
      code,
      message: expect.stringContaining(says),
    });
  });
});
