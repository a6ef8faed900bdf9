import { readFileSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, it } from 'vitest';
import { array, ggufFile, text, u32, type GgufContent, type GgufEntry } from '../tools/gguf/gguf_writer.mjs';
import { edit, expectRefused, type BrokenCheckpoint } from './support/broken_checkpoint.js';
import { writeRandomModel, type RandomModelOptions } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

const folder = tempFolder();
let made = 0;
const fresh = (extension = '') => path.join(folder, `${made++}${extension}`);
const makeGguf = (options: Partial<RandomModelOptions> = {}) =>
  writeRandomModel(fresh('.gguf'), { format: 'gguf', ...options });

const writeBytes = (content: Buffer) => {
  const file = fresh('.gguf');
  writeFileSync(file, content);
  return file;
};

const onlyMetadata = (metadata: Record<string, GgufEntry>, rest: Partial<GgufContent> = {}) =>
  writeBytes(ggufFile({ metadata, tensors: [], ...rest }));
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
  const cases: BrokenCheckpoint[] = [
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
  ];

  it.each(cases)('%s', expectRefused);
});
