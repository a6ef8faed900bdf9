import { ByteReader } from './byte_reader.js';
import { DTYPE_BLOCK, type Checkpoint, type DType, type TensorInfo } from './types.js';

/** Expands the block at byte `at` into `out` from index `to` on. */
type BlockReader = (view: DataView, at: number, out: Float32Array, to: number) => void;

const READERS: Record<DType, BlockReader> = {
  F32: (view, at, out, to) => void (out[to] = view.getFloat32(at, true)),
  F16: (view, at, out, to) => void (out[to] = float16(view, at)),
  BF16: (view, at, out, to) => {
    bits[0] = view.getUint16(at, true) << 16;
    out[to] = float[0]!;
  },
  // f16 d, 32 × int8: w = d·q
  Q8_0: (view, at, out, to) => {
    const d = float16(view, at);
    for (let i = 0; i < 32; i++) out[to + i] = d * view.getInt8(at + 2 + i);
  },
  // f16 d, 16 bytes whose low nibbles are weights 0–15 and high ones 16–31: w = d·(q − 8)
  Q4_0: (view, at, out, to) => {
    const d = float16(view, at);
    for (let i = 0; i < 16; i++) {
      const pair = view.getUint8(at + 2 + i);
      out[to + i] = d * ((pair & 15) - 8);
      out[to + i + 16] = d * ((pair >> 4) - 8);
    }
  },
  Q4_K: (view, at, out, to) => readK(view, at, out, to, false),
  Q5_K: (view, at, out, to) => readK(view, at, out, to, true),
  // Each half has 64 bytes of low nibbles and 32 of upper bit pairs for four runs of 32; 16 × int8 scales; f16 d: w =
  // d·scale·(q − 32)
  Q6_K: (view, at, out, to) => {
    const d = float16(view, at + 208);
    for (let k = 0; k < 256; k++) {
      const [half, run, i] = [k >> 7, (k >> 5) & 3, k & 31];
      const low = (view.getUint8(at + 64 * half + 32 * (run & 1) + i) >> (4 * (run >> 1))) & 15;
      const high = (view.getUint8(at + 128 + 32 * half + i) >> (2 * run)) & 3;
      out[to + k] = d * view.getInt8(at + 192 + (k >> 4)) * ((low | (high << 4)) - 32);
    }
  },
};

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/**
 * f16 d and dmin, 6-bit scales and minima of eight runs of 32, for Q5_K their fifth bits, nibbles: w = d·scale·q −
 * dmin·minimum.
 */
function readK(view: DataView, at: number, out: Float32Array, to: number, five: boolean): void {
  const [d, dmin] = [float16(view, at), float16(view, at + 2)];
  const byte = (i: number): number => view.getUint8(at + 4 + i);
  const nibbles = at + (five ? 48 : 16);
  for (let j = 0; j < 8; j++) {
    const scale = j < 4 ? byte(j) & 63 : (byte(j + 4) & 15) | ((byte(j - 4) >> 6) << 4);
    const minimum = j < 4 ? byte(j + 4) & 63 : (byte(j + 4) >> 4) | ((byte(j) >> 6) << 4);
    for (let i = 0; i < 32; i++) {
      let q = (view.getUint8(nibbles + 32 * (j >> 1) + i) >> (4 * (j & 1))) & 15;
      if (five) q |= ((view.getUint8(at + 16 + i) >> j) & 1) << 4;
      out[to + 32 * j + i] = d * scale * q - dmin * minimum;
    }
  }
}

function float16(view: DataView, at: number): number {
  const half = view.getUint16(at, true);
  const [exponent, fraction] = [(half >> 10) & 31, half & 1023];
  const magnitude =
    exponent === 0
      ? fraction * 2 ** -24
      : exponent === 31
        ? fraction === 0
          ? Infinity
          : Number.NaN
        : (1024 + fraction) * 2 ** (exponent - 25);
  return half & 0x8000 ? -magnitude : magnitude;
}

/**
 * The rows of a matrix in order, each as float32 [columns], valid until the next. Reads the file piece by piece, so
 * that only what is looked at is in memory. Throws FILE_NOT_FOUND or INVALID_CHECKPOINT.
 */
export async function* readRows(
  { files }: Pick<Checkpoint, 'files'>,
  { name, dtype, rows, cols, file, offset, byteLength }: TensorInfo,
): AsyncGenerator<Float32Array> {
  const { weights, bytes } = DTYPE_BLOCK[dtype];
  const readBlock = READERS[dtype];
  const row = new Float32Array(cols);
  const reader = await ByteReader.open(files[file]!, offset + byteLength, offset);
  try {
    for (let i = 0; i < rows; i++) {
      const view = await reader.read((cols / weights) * bytes, name);
      for (let block = 0; block < cols / weights; block++) readBlock(view, block * bytes, row, block * weights);
      yield row;
    }
  } finally {
    await reader.close();
  }
}
