import { DTYPE_BLOCK, type DType } from '../../lib/checkpoint/types.js';

type BlockEncoder = (values: Float64Array, block: Buffer) => void;

const ENCODERS: Record<DType, BlockEncoder> = {
  F32: ([value], block) => void block.writeFloatLE(value!),
  F16: ([value], block) => void block.writeUInt16LE(toHalf(value!)),
  BF16: ([value], block) => void block.writeUInt16LE(toBFloat16(value!)),
  Q8_0: encodeQ8_0,
  Q4_0: encodeQ4_0,
  Q4_K: (values, block) => encodeKWithMinimum(values, block, 4),
  Q5_K: (values, block) => encodeKWithMinimum(values, block, 5),
  Q6_K: encodeQ6_K,
};

/**
 * Values in a weight format, rounded simply: valid blocks in ggml's exact bit layout, not the best choice of scales.
 */
export function encode(dtype: DType, values: Float64Array): Buffer {
  const { weights, bytes } = DTYPE_BLOCK[dtype];
  if (values.length % weights !== 0) throw new Error(`${values.length} values are no whole number of ${dtype} blocks`);
  const out = Buffer.alloc((values.length / weights) * bytes);
  for (let i = 0; i < values.length / weights; i++) {
    ENCODERS[dtype](values.subarray(i * weights, (i + 1) * weights), out.subarray(i * bytes, (i + 1) * bytes));
  }
  return out;
}

const scratch = new DataView(new ArrayBuffer(4));

/** The upper half of the float32, rounded to nearest even. */
function toBFloat16(value: number): number {
  scratch.setFloat32(0, value);
  const bits = scratch.getUint32(0);
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** IEEE binary16, rounded to nearest even; values too large become infinite. */
export function toHalf(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (magnitude >= 65520) return sign | 0x7c00;
  const exponent = Math.max(Math.floor(Math.log2(magnitude || 1e-300)), -14);
  // In units of the last place; a mantissa that rounds up to 2048 carries into the exponent, as the bits themselves do.
  const units = roundToEven(magnitude / 2 ** (exponent - 10));
  return sign | (units < 1024 ? units : ((exponent + 15) << 10) + units - 1024);
}

function fromHalf(bits: number): number {
  const exponent = (bits >>> 10) & 31;
  const mantissa = bits & 1023;
  const magnitude = exponent === 0 ? mantissa * 2 ** -24 : (1024 + mantissa) * 2 ** (exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

function roundToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}

/** Writes a scale as binary16 and gives back what a reader will see. */
function writeScale(block: Buffer, at: number, scale: number): number {
  const bits = toHalf(scale);
  block.writeUInt16LE(bits, at);
  return fromHalf(bits);
}

function quantize(value: number, scale: number, min: number, max: number): number {
  return scale === 0 ? 0 : Math.min(Math.max(Math.round(value / scale), min), max);
}

const largest = (values: Iterable<number>) => Math.max(0, ...Array.from(values, Math.abs));

// f16 scale, 32 int8
function encodeQ8_0(values: Float64Array, block: Buffer): void {
  const scale = writeScale(block, 0, largest(values) / 127);
  values.forEach((value, i) => block.writeInt8(quantize(value, scale, -127, 127), 2 + i));
}

// f16 scale, 16 bytes of which byte i holds weights i (low nibble) and i + 16; stored with an offset of 8
function encodeQ4_0(values: Float64Array, block: Buffer): void {
  const scale = writeScale(block, 0, largest(values) / 7);
  const nibble = (i: number) => quantize(values[i]!, scale, -8, 7) + 8;
  for (let i = 0; i < 16; i++) block[2 + i] = nibble(i) | (nibble(i + 16) << 4);
}

/** Q4_K and Q5_K: weight = scale·s·q − minimum·m, with 6-bit s and m for each of 8 sub-blocks of 32. */
function encodeKWithMinimum(values: Float64Array, block: Buffer, bits: 4 | 5): void {
  const maxQ = 2 ** bits - 1;
  const subBlocks = Array.from({ length: 8 }, (_, j) => values.subarray(32 * j, 32 * j + 32));
  const minimums = subBlocks.map((sub) => Math.max(0, -Math.min(...sub)));
  const steps = subBlocks.map((sub, j) => (Math.max(...sub) + minimums[j]!) / maxQ);
  const scale = writeScale(block, 0, largest(steps) / 63);
  const minimum = writeScale(block, 2, largest(minimums) / 63);
  const s = steps.map((step) => quantize(step, scale, 0, 63));
  const m = minimums.map((value) => quantize(value, minimum, 0, 63));
  packScales(s, m, block.subarray(4, 16));

  const high = block.subarray(16, 48);
  const low = block.subarray(bits === 5 ? 48 : 16);
  subBlocks.forEach((sub, j) => {
    sub.forEach((value, i) => {
      const q = quantize(value + minimum * m[j]!, scale * s[j]!, 0, maxQ);
      // Sub-blocks 2k and 2k + 1 share 32 bytes, low and high nibbles; Q5_K's fifth bits lie in one byte per position.
      low[32 * (j >> 1) + i]! |= (q & 15) << (4 * (j & 1));
      if (bits === 5) high[i]! |= (q >> 4) << j;
    });
  });
}

/**
 * Eight 6-bit pairs in 12 bytes: four whole in bytes 0–3 and 4–7, the others' low bits in 8–11 and high bits above the
 * first.
 */
function packScales(s: readonly number[], m: readonly number[], out: Buffer): void {
  for (let j = 0; j < 4; j++) {
    out[j] = s[j]! | ((s[j + 4]! >> 4) << 6);
    out[j + 4] = m[j]! | ((m[j + 4]! >> 4) << 6);
    out[j + 8] = (s[j + 4]! & 15) | ((m[j + 4]! & 15) << 4);
  }
}

/**
 * weight = scale·s·(q − 32), int8 s for each 16; 128 bytes of low nibbles, 64 of upper bit pairs, 16 of s, the scale.
 */
function encodeQ6_K(values: Float64Array, block: Buffer): void {
  const steps = Array.from({ length: 16 }, (_, j) => largest(values.subarray(16 * j, 16 * j + 16)) / 31);
  const scale = writeScale(block, 208, largest(steps) / 127);
  steps.forEach((step, j) => block.writeInt8(quantize(step, scale, -127, 127), 192 + j));
  values.forEach((value, i) => {
    const q = quantize(value, scale * block.readInt8(192 + (i >> 4)), -32, 31) + 32;
    // A half has four runs of 32: the low nibbles are runs 0 and 1, the high nibbles of the same bytes runs 2 and 3.
    const [half, run, l] = [i >> 7, (i >> 5) & 3, i & 31];
    block[64 * half + 32 * (run & 1) + l]! |= (q & 15) << (4 * (run >> 1));
    block[128 + 32 * half + l]! |= (q >> 4) << (2 * run);
  });
}
