import { describe, expect, it } from 'vitest';
import { DTYPE_BLOCK, type DType } from '../lib/checkpoint/types.js';
import { dequantize } from './reference/dequantize.js';
import { encode, toHalf } from './support/encode.js';
import { randomNormal } from './support/random.js';

// Root-mean-square error of a normal sample, relative to its deviation: about step / √12 of each format, with room for
// simple scales.
const EXPECTED_ERROR: Record<DType, number> = {
  F32: 1e-7,
  F16: 3e-4,
  BF16: 2.5e-3,
  Q8_0: 0.008,
  Q4_0: 0.11,
  Q4_K: 0.09,
  Q5_K: 0.045,
  Q6_K: 0.025,
};

describe('the test encoders write blocks that the reference decoder reads back', () => {
  for (const dtype of Object.keys(DTYPE_BLOCK) as DType[]) {
    it(dtype, () => {
      const normal = randomNormal(7);
      const values = Float64Array.from({ length: 2048 }, () => 0.1 * normal());
      const decoded = dequantize(dtype, encode(dtype, values), values.length);
      const meanSquare = values.reduce((sum, value, i) => sum + (value - decoded[i]!) ** 2, 0) / values.length;
      expect(Math.sqrt(meanSquare) / 0.1).toBeLessThan(EXPECTED_ERROR[dtype]);
    });
  }

  it('binary16 rounds to nearest even, over normal, subnormal and overflowing values', () => {
    const cases: Array<[number, number]> = [
      [0, 0],
      [-0, 0x8000],
      [1, 0x3c00],
      [-2, 0xc000],
      [65504, 0x7bff],
      [65520, 0x7c00],
      [2 ** -24, 1],
      [2 ** -25, 0],
      [2 ** -14, 0x0400],
      [2 ** -14 - 2 ** -25, 0x0400],
      [1 + 2 ** -11, 0x3c00],
      [1 + 3 * 2 ** -11, 0x3c02],
      [1e-8, 0],
    ];
    for (const [value, bits] of cases) expect(toHalf(value), String(value)).toBe(bits);
  });
});
