import type { DType, TensorInfo } from './checkpoint/types.js';

/**
 * What a vector is when weights are multiplied with it: float32, or rounded to int8 in blocks of 32 values, each with a float32 scale,
 * max|x| / 127, to the nearest integer, ties to even.
 */
export type Activations = 'float32' | 'int8';

/** What can be asked for: `auto` leaves it to the weights, see `chooseActivations`. */
export const ACTIVATIONS_CHOICES = ['auto', 'float32', 'int8'] as const;
export type ActivationsChoice = (typeof ACTIVATIONS_CHOICES)[number];

/** Formats of weights whose products are made with int8 activations where those are asked for; the others' stay in float32. */
const INT8_DTYPES: readonly DType[] = ['Q8_0', 'Q4_0', 'Q4_K', 'Q6_K'];

type Matrices = ReadonlyArray<Pick<TensorInfo, 'dtype' | 'rows' | 'byteLength'>>;

/** The share, 0 to 1, of the bytes of a model's matrices that int8 activations are multiplied with. */
export function int8Share(tensors: Matrices): number {
  const matrices = tensors.filter(({ rows }) => rows > 1);
  const bytes = (some: typeof matrices): number => some.reduce((sum, { byteLength }) => sum + byteLength, 0);
  return bytes(matrices.filter(({ dtype }) => INT8_DTYPES.includes(dtype))) / bytes(matrices);
}

/**
 * `auto` is int8 on the CPU where it applies to most of a model's matrices, by bytes: what it adds to the rounding of such weights is as small
 * as that of Q8_0 itself, and llama.cpp rounds the same. Elsewhere it is float32.
 */
export function chooseActivations(choice: ActivationsChoice, backend: 'cpu' | 'cuda', tensors: Matrices): Activations {
  if (choice !== 'auto') return choice;
  return backend === 'cpu' && int8Share(tensors) > 0.5 ? 'int8' : 'float32';
}
