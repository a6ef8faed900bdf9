import { randomFillSync } from 'node:crypto';
import { closeSync, openSync, writeSync } from 'node:fs';
import { GGUF_NAMES, tensorName } from '../../dist/checkpoint/names.js';
import { syntheticCheckpoint } from '../../dist/checkpoint/synthetic.js';

const ALIGNMENT = 32;

/** Per format: ggml's type code, bytes per block, and the power of two that a typical value is of its 16-bit scale (or of itself). */
const FORMATS = {
  F32: { code: 0 },
  F16: { code: 1, blockBytes: 2, fillBlock: fillHalf },
  Q4_0: { code: 2, blockBytes: 18, fillBlock: (block, width) => block.writeUInt16LE(halfBits(width + 2)) },
  Q8_0: { code: 8, blockBytes: 34, fillBlock: (block, width) => block.writeUInt16LE(halfBits(width + 6)) },
};

/** Formats that can be written. */
export const DTYPES = ['F16', 'Q8_0', 'Q4_0'];

/**
 * Writes a llama GGUF file of a published shape with random weights that keep activations finite; good for speed only.
 * Returns { config, weightBytes }: bytes of weights that one decoded token reads.
 */
export function writeRandomGguf(file, shapeName, dtype) {
  const { config, tensors } = syntheticCheckpoint(shapeName, dtype);
  const infos = [];
  let offset = 0;
  for (const { role, layer, rows, cols, dtype: type, byteLength } of tensors) {
    const dims = rows === 1 ? [cols] : [cols, rows];
    infos.push(string(tensorName(GGUF_NAMES, role, layer)), u32(dims.length), ...dims.map(u64), u32(FORMATS[type].code), u64(offset));
    offset = align(offset + byteLength);
  }
  const metadata = metadataOf(config);
  const header = Buffer.concat([Buffer.from('GGUF'), u32(3), u64(tensors.length), u64(metadata.length), ...metadata, ...infos]);

  const fd = openSync(file, 'w');
  writeSync(fd, header);
  writeSync(fd, Buffer.alloc(align(header.length) - header.length));
  for (const tensor of tensors) writeSync(fd, randomWeights(tensor));
  closeSync(fd);
  const read = tensors.filter(({ role }) => role !== 'token_embedding' || config.tiedEmbeddings);
  return { config, weightBytes: read.reduce((total, { byteLength }) => total + byteLength, 0) };
}

/** Norms are 1; matrices get random bits under scales of about 1/√cols. */
function randomWeights({ dtype, cols, byteLength }) {
  const bytes = Buffer.alloc(align(byteLength));
  if (dtype === 'F32') {
    for (let at = 0; at < byteLength; at += 4) bytes.writeFloatLE(1, at);
    return bytes;
  }
  randomFillSync(bytes, 0, byteLength);
  const { blockBytes, fillBlock } = FORMATS[dtype];
  const width = Math.ceil(Math.log2(Math.sqrt(cols)));
  for (let at = 0; at < byteLength; at += blockBytes) fillBlock(bytes.subarray(at, at + blockBytes), width);
  return bytes;
}

/** Keeps the random sign and fraction: ±[1, 2) · 2^−width. */
function fillHalf(block, width) {
  block.writeUInt16LE((block.readUInt16LE() & 0x83ff) | halfBits(width));
}

/** 2^−power as IEEE binary16. */
function halfBits(power) {
  return (15 - power) << 10;
}

function metadataOf(config) {
  const tokens = Array.from({ length: config.vocabSize }, (_, i) => ['<unk>', '<s>', '</s>'][i] ?? (i < 259 ? `<0x${(i - 3).toString(16).toUpperCase().padStart(2, '0')}>` : `t${i}`));
  const kinds = tokens.map((_, i) => (i === 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1));
  const [U32, I32, F32, STRING, ARRAY] = [4, 5, 6, 8, 9];
  const llama = { block_count: config.nLayers, context_length: config.contextLength, embedding_length: config.dim, feed_forward_length: config.hiddenDim, 'attention.head_count': config.nHeads, 'attention.head_count_kv': config.nKvHeads, 'rope.dimension_count': config.headDim, vocab_size: config.vocabSize };
  return [
    [string('general.architecture'), u32(STRING), string('llama')],
    ...Object.entries(llama).map(([key, value]) => [string(`llama.${key}`), u32(U32), u32(value)]),
    [string('llama.attention.layer_norm_rms_epsilon'), u32(F32), f32(config.normEps)],
    [string('tokenizer.ggml.model'), u32(STRING), string('llama')],
    [string('tokenizer.ggml.tokens'), u32(ARRAY), u32(STRING), u64(tokens.length), ...tokens.map(string)],
    [string('tokenizer.ggml.scores'), u32(ARRAY), u32(F32), u64(tokens.length), ...tokens.map((_, i) => f32(-i))],
    [string('tokenizer.ggml.token_type'), u32(ARRAY), u32(I32), u64(tokens.length), ...kinds.map(u32)],
  ].map((parts) => Buffer.concat(parts));
}

function align(position) {
  return Math.ceil(position / ALIGNMENT) * ALIGNMENT;
}

function string(text) {
  const bytes = Buffer.from(text);
  return Buffer.concat([u64(bytes.length), bytes]);
}

function u32(value) {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(value);
  return out;
}

function u64(value) {
  const out = Buffer.alloc(8);
  out.writeBigUInt64LE(BigInt(value));
  return out;
}

function f32(value) {
  const out = Buffer.alloc(4);
  out.writeFloatLE(value);
  return out;
}
