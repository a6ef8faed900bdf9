import type { DType } from '../../lib/checkpoint/types.js';

/** Expands one block, starting at byte `at` of `view`, into `out` starting at `to`. */
type BlockReader = (view: DataView, at: number, out: Float64Array, to: number) => void;

interface BlockFormat {
  weights: number;
  bytes: number;
  read: BlockReader;
}

/** IEEE 754 binary16 at byte `at`, little-endian. */
function readFloat16(view: DataView, at: number): number {
  const bits = view.getUint16(at, true);
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** bfloat16 at byte `at`: the upper half of a binary32. */
function readBfloat16(view: DataView, at: number): number {
  const widened = new DataView(new ArrayBuffer(4));
  widened.setUint16(2, view.getUint16(at, true), true);
  return widened.getFloat32(0, true);
}

/** One scale d, then 32 signed bytes q: w = d·q. */
const readQ8_0: BlockReader = (view, at, out, to) => {
  const d = readFloat16(view, at);
  for (let i = 0; i < 32; i++) out[to + i] = d * view.getInt8(at + 2 + i);
};

/** One scale d, then 16 bytes: the low nibbles are weights 0–15, the high ones 16–31; w = d·(q − 8). */
const readQ4_0: BlockReader = (view, at, out, to) => {
  const d = readFloat16(view, at);
  for (let i = 0; i < 16; i++) {
    const byte = view.getUint8(at + 2 + i);
    out[to + i] = d * ((byte & 15) - 8);
    out[to + 16 + i] = d * ((byte >> 4) - 8);
  }
};

/**
 * The 6-bit scale and minimum of sub-block s (0–7) of Q4_K and Q5_K, packed in 12 bytes: sub-blocks 0–3 have their
 * scales in bytes 0–3 and minima in bytes 4–7 (low six bits); 4–7 have low nibbles (scale low, minimum high) in bytes
 * 8–11 and their upper two bits in the top of bytes 0–3 and 4–7.
 */
function scaleAndMin(view: DataView, at: number, s: number): { scale: number; min: number } {
  if (s < 4) return { scale: view.getUint8(at + s) & 63, min: view.getUint8(at + 4 + s) & 63 };
  const low = view.getUint8(at + 4 + s);
  return {
    scale: (low & 15) | ((view.getUint8(at + s - 4) >> 6) << 4),
    min: (low >> 4) | ((view.getUint8(at + s) >> 6) << 4),
  };
}

/**
 * d, dmin, 12 bytes of scales, 128 bytes of nibbles; each 32 bytes hold two sub-blocks of 32: w = d·scale·q − dmin·min.
 */
const readQ4_K: BlockReader = (view, at, out, to) => {
  const d = readFloat16(view, at);
  const dmin = readFloat16(view, at + 2);
  for (let s = 0; s < 8; s++) {
    const { scale, min } = scaleAndMin(view, at + 4, s);
    for (let i = 0; i < 32; i++) {
      const byte = view.getUint8(at + 16 + (s >> 1) * 32 + i);
      const q = s % 2 === 0 ? byte & 15 : byte >> 4;
      out[to + s * 32 + i] = d * scale * q - dmin * min;
    }
  }
};

/**
 * As Q4_K, with 32 bytes of fifth bits before the nibbles: bit s of byte i is the fifth bit of weight i in sub-block s.
 */
const readQ5_K: BlockReader = (view, at, out, to) => {
  const d = readFloat16(view, at);
  const dmin = readFloat16(view, at + 2);
  for (let s = 0; s < 8; s++) {
    const { scale, min } = scaleAndMin(view, at + 4, s);
    for (let i = 0; i < 32; i++) {
      const fifth = (view.getUint8(at + 16 + i) >> s) & 1;
      const byte = view.getUint8(at + 48 + (s >> 1) * 32 + i);
      const q = (s % 2 === 0 ? byte & 15 : byte >> 4) + 16 * fifth;
      out[to + s * 32 + i] = d * scale * q - dmin * min;
    }
  }
};

/**
 * 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed scales (one per 16 weights), d: w = d·scale·(q −
 * 32). Each half of 128 weights is four runs of 32: the low nibbles of 64 bytes give runs 0 and 1, the high ones runs 2
 * and 3, and bits 2r, 2r+1 of the half's 32 upper bytes belong to run r.
 */
const readQ6_K: BlockReader = (view, at, out, to) => {
  const d = readFloat16(view, at + 208);
  for (let w = 0; w < 256; w++) {
    const half = w >> 7;
    const run = (w >> 5) & 3;
    const i = w & 31;
    const lowByte = view.getUint8(at + half * 64 + (run & 1) * 32 + i);
    const low = run < 2 ? lowByte & 15 : lowByte >> 4;
    const high = (view.getUint8(at + 128 + half * 32 + i) >> (2 * run)) & 3;
    out[to + w] = d * view.getInt8(at + 192 + (w >> 4)) * (low + 16 * high - 32);
  }
};

/**
 * Little-endian layouts as ggml publishes them; written here anew, so that it is no copy of the engine's own tables.
 */
const FORMATS: Record<DType, BlockFormat> = {
  F32: { weights: 1, bytes: 4, read: (view, at, out, to) => void (out[to] = view.getFloat32(at, true)) },
  F16: { weights: 1, bytes: 2, read: (view, at, out, to) => void (out[to] = readFloat16(view, at)) },
  BF16: { weights: 1, bytes: 2, read: (view, at, out, to) => void (out[to] = readBfloat16(view, at)) },
  Q8_0: { weights: 32, bytes: 34, read: readQ8_0 },
  Q4_0: { weights: 32, bytes: 18, read: readQ4_0 },
  Q4_K: { weights: 256, bytes: 144, read: readQ4_K },
  Q5_K: { weights: 256, bytes: 176, read: readQ5_K },
  Q6_K: { weights: 256, bytes: 210, read: readQ6_K },
};

/** The `count` weights that `bytes` hold in a format, exact in float64. */
export function dequantize(dtype: DType, bytes: Uint8Array, count: number): Float64Array {
  const { weights, bytes: blockBytes, read } = FORMATS[dtype];
  const blocks = count / weights;
  if (!Number.isInteger(blocks) || bytes.byteLength !== blocks * blockBytes) {
    throw new RangeError(`${bytes.byteLength} bytes are not ${count} weights of ${dtype}`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out = new Float64Array(count);
  for (let b = 0; b < blocks; b++) read(view, b * blockBytes, out, b * weights);
  return out;
}
