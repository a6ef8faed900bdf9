import type { DType, TensorInfo } from './checkpoint/types.js';

/**
 * What a vector is when weights are multiplied with it: float32, or rounded to int8 in blocks of 32 values, each with a float32 scale,
 * max|x| / 127, to the nearest integer, ties to even.
 */
export const ACTIVATIONS = ['float32', 'int8'] as const;
export type Activations = (typeof ACTIVATIONS)[number];

/** Formats of weights whose products are made with int8 activations where those are asked for; the others' stay in float32. */
const INT8_DTYPES: readonly DType[] = ['Q8_0', 'Q4_0', 'Q4_K', 'Q6_K'];

/** The share, 0 to 1, of the bytes of a model's matrices that int8 activations are multiplied with. */
export function int8Share(tensors: ReadonlyArray<Pick<TensorInfo, 'dtype' | 'rows' | 'byteLength'>>): number {
  const matrices = tensors.filter(({ rows }) => rows > 1);
  const bytes = (some: typeof matrices): number => some.reduce((sum, { byteLength }) => sum + byteLength, 0);
  return bytes(matrices.filter(({ dtype }) => INT8_DTYPES.includes(dtype))) / bytes(matrices);
}
