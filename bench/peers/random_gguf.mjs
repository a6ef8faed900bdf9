import { randomFillSync } from 'node:crypto';
import { closeSync, openSync, writeSync } from 'node:fs';
import { chooseActivations, roundedShare } from '../../dist/activations.js';
import { GGUF_NAMES, tensorName } from '../../dist/checkpoint/names.js';
import { describeMachine } from '../../dist/machine.js';
import { syntheticCheckpoint } from '../../dist/checkpoint/synthetic.js';
import { array, f32, ggufHeader, pad, text, u32 } from '../../tools/gguf/gguf_writer.mjs';

/**
 * Per format: ggml's type code, bytes per block, and what makes a block of random bits one of weights of about
 * 2^−width: the power of two that a typical weight is of the block's 16-bit scale, or of itself.
 */
const FORMATS = {
  F32: { code: 0, blockBytes: 4, fillBlock: fillFloat },
  F16: { code: 1, blockBytes: 2, fillBlock: fillHalf },
  BF16: { code: 30, blockBytes: 2, fillBlock: fillBrain },
  Q8_0: { code: 8, blockBytes: 34, fillBlock: (block, width) => block.writeUInt16LE(halfBits(width + 6)) },
  Q4_0: { code: 2, blockBytes: 18, fillBlock: (block, width) => block.writeUInt16LE(halfBits(width + 2)) },
  Q4_K: { code: 12, blockBytes: 144, fillBlock: fillQ4K },
  Q6_K: { code: 14, blockBytes: 210, fillBlock: (block, width) => block.writeUInt16LE(halfBits(width + 10), 208) },
};

/** Formats that can be written. */
export const DTYPES = Object.keys(FORMATS);

/**
 * Writes a llama GGUF file of a published shape with random weights that keep activations finite; good for speed only.
 * Returns { config, weightBytes, activations }: bytes of weights that one decoded token reads, and the activations that
 * can be chosen, the default first.
 */
export function writeRandomGguf(file, shapeName, dtype) {
  const { config, tensors } = syntheticCheckpoint(shapeName, dtype);
  const described = tensors.map(({ role, layer, rows, cols, dtype: type, byteLength }) => ({
    name: tensorName(GGUF_NAMES, role, layer),
    type: FORMATS[type].code,
    shape: rows === 1 ? [cols] : [rows, cols],
    byteLength,
  }));
  const fd = openSync(file, 'w');
  writeSync(fd, ggufHeader({ metadata: metadataOf(config), tensors: described }));
  for (const tensor of tensors) writeSync(fd, pad(randomWeights(tensor)));
  closeSync(fd);
  const read = tensors.filter(({ role }) => role !== 'token_embedding' || config.tiedEmbeddings);
  const unsaid = chooseActivations('auto', 'cpu', tensors, describeMachine);
  const applicable = ['float32', ...['bf16', 'int8'].filter((format) => roundedShare(format, tensors) > 0)];
  const activations = [unsaid, ...applicable.filter((format) => format !== unsaid)];
  return { config, weightBytes: read.reduce((total, { byteLength }) => total + byteLength, 0), activations };
}

/** Norms are 1; matrices get random bits under scales of about 1/√cols. */
function randomWeights({ dtype, rows, cols, byteLength }) {
  const bytes = Buffer.alloc(byteLength);
  if (rows === 1) {
    for (let at = 0; at < byteLength; at += 4) bytes.writeFloatLE(1, at);
    return bytes;
  }
  randomFillSync(bytes);
  const { blockBytes, fillBlock } = FORMATS[dtype];
  const width = Math.ceil(Math.log2(Math.sqrt(cols)));
  for (let at = 0; at < byteLength; at += blockBytes) fillBlock(bytes.subarray(at, at + blockBytes), width);
  return bytes;
}

/** Keeps the random sign and fraction: ±[1, 2) · 2^−width. */
function fillHalf(block, width) {
  block.writeUInt16LE((block.readUInt16LE() & 0x83ff) | halfBits(width));
}

/** The same as a float32. */
function fillFloat(block, width) {
  block.writeUInt32LE(((block.readUInt32LE() & 0x807fffff) | ((127 - width) << 23)) >>> 0);
}

/** The same as a bfloat16. */
function fillBrain(block, width) {
  block.writeUInt16LE((block.readUInt16LE() & 0x807f) | ((127 - width) << 7));
}

/**
 * Scales and minima of 6 bits average 31.5, nibbles 7.5: with dmin = 7.5 d weights average zero, and are about 2^8 d.
 */
function fillQ4K(block, width) {
  block.writeUInt16LE(halfBits(width + 8));
  block.writeUInt16LE(halfBits(width + 6) | 0x380, 2);
}

/** 2^−power as IEEE binary16, subnormal beyond 2^−14. */
function halfBits(power) {
  return power <= 14 ? (15 - power) << 10 : 1 << (24 - power);
}

function metadataOf(config) {
  const tokens = Array.from(
    { length: config.vocabSize },
    (_, i) =>
      ['<unk>', '<s>', '</s>'][i] ?? (i < 259 ? `<0x${(i - 3).toString(16).toUpperCase().padStart(2, '0')}>` : `t${i}`),
  );
  const kinds = tokens.map((_, i) => (i === 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1));
  const llama = {
    block_count: config.nLayers,
    context_length: config.contextLength,
    embedding_length: config.dim,
    feed_forward_length: config.hiddenDim,
    'attention.head_count': config.nHeads,
    'attention.head_count_kv': config.nKvHeads,
    'rope.dimension_count': config.headDim,
    vocab_size: config.vocabSize,
  };
  return {
    'general.architecture': text('llama'),
    ...Object.fromEntries(Object.entries(llama).map(([key, value]) => [`llama.${key}`, u32(value)])),
    'llama.attention.layer_norm_rms_epsilon': f32(config.normEps),
    'tokenizer.ggml.model': text('llama'),
    'tokenizer.ggml.tokens': array('string', tokens),
    'tokenizer.ggml.scores': array(
      'f32',
      tokens.map((_, i) => -i),
    ),
    'tokenizer.ggml.token_type': array('i32', kinds),
  };
}
