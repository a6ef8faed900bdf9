/**
 * Per format: ggml's type code, weights and bytes per block, and what makes a block of random bits one of weights of
 * about 2^−width: the power of two that a typical weight is of the block's 16-bit scale, or of itself.
 */
export const FORMATS = {
  F32: { code: 0, weights: 1, blockBytes: 4, fillBlock: fillFloat },
  F16: { code: 1, weights: 1, blockBytes: 2, fillBlock: fillHalf },
  BF16: { code: 30, weights: 1, blockBytes: 2, fillBlock: fillBrain },
  Q8_0: { code: 8, weights: 32, blockBytes: 34, fillBlock: (block, width) => block.writeUInt16LE(halfBits(width + 6)) },
  Q4_0: { code: 2, weights: 32, blockBytes: 18, fillBlock: (block, width) => block.writeUInt16LE(halfBits(width + 2)) },
  Q4_K: { code: 12, weights: 256, blockBytes: 144, fillBlock: (block, width) => fillK(block, width, 8) },
  Q5_K: { code: 13, weights: 256, blockBytes: 176, fillBlock: (block, width) => fillK(block, width, 9) },
  Q6_K: {
    code: 14,
    weights: 256,
    blockBytes: 210,
    fillBlock: (block, width) => block.writeUInt16LE(halfBits(width + 10), 208),
  },
};

/**
 * Makes random bytes a tensor that keeps activations finite: norms, which are one row, are 1; matrices have weights of
 * about 1/√cols.
 */
export function fillRandom(bytes, { dtype, rows, cols }) {
  if (rows === 1) {
    for (let at = 0; at < bytes.length; at += 4) bytes.writeFloatLE(1, at);
    return bytes;
  }
  const { blockBytes, fillBlock } = FORMATS[dtype];
  const width = Math.ceil(Math.log2(Math.sqrt(cols)));
  for (let at = 0; at < bytes.length; at += blockBytes) fillBlock(bytes.subarray(at, at + blockBytes), width);
  return bytes;
}

/** Keeps the random sign and fraction: ±[1, 2) · 2^−width. */
function fillHalf(block, width) {
  block.writeUInt16LE((block.readUInt16LE() & 0x83ff) | halfBits(width));
}

/** Keeps the random sign and fraction of a float32, as fillHalf does. */
function fillFloat(block, width) {
  block.writeUInt32LE(((block.readUInt32LE() & 0x807fffff) | ((127 - width) << 23)) >>> 0);
}

/** Keeps the random sign and fraction of a bfloat16, as fillHalf does. */
function fillBrain(block, width) {
  block.writeUInt16LE((block.readUInt16LE() & 0x807f) | ((127 - width) << 7));
}

/**
 * Scales and minima of 6 bits average 31.5, nibbles 7.5 and five bits 15.5: with dmin = 7.5 d for nibbles, and twice
 * that for five bits, weights average about zero. d is 2^−(width + power).
 */
function fillK(block, width, power) {
  block.writeUInt16LE(halfBits(width + power));
  block.writeUInt16LE(halfBits(width + 6) | 0x380, 2);
}

/** 2^−power as IEEE binary16, subnormal beyond 2^−14. */
function halfBits(power) {
  return power <= 14 ? (15 - power) << 10 : 1 << (24 - power);
}
