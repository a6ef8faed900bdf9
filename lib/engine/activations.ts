import type { DType, TensorInfo } from '../checkpoint/types.js';

/**
 * What a vector is when weights are multiplied with it: float32; rounded to bf16, ties to even; or rounded to int8 in
 * blocks of 32 values, each with a float32 scale, max|x| / 127, to the nearest integer, ties to even.
 */
export type Activations = 'float32' | 'bf16' | 'int8';

/** What can be asked for: `auto` leaves it to the weights, see `chooseActivations`. */
export const ACTIVATIONS_CHOICES = ['auto', 'float32', 'bf16', 'int8'] as const;
export type ActivationsChoice = (typeof ACTIVATIONS_CHOICES)[number];

/**
 * Formats of weights whose products are made with rounded activations where those are asked for; the others' stay in
 * float32.
 */
const ROUNDED_DTYPES: Readonly<Record<Exclude<Activations, 'float32'>, readonly DType[]>> = {
  bf16: ['BF16'],
  int8: ['Q8_0', 'Q4_0', 'Q4_K', 'Q6_K'],
};

export type Matrices = ReadonlyArray<Pick<TensorInfo, 'dtype' | 'rows' | 'byteLength'>>;

/** The share, 0 to 1, of the bytes of a model's matrices that activations of this format are multiplied with. */
export function roundedShare(format: keyof typeof ROUNDED_DTYPES, tensors: Matrices): number {
  const matrices = tensors.filter(({ rows }) => rows > 1);
  const bytes = (some: typeof matrices): number => some.reduce((sum, { byteLength }) => sum + byteLength, 0);
  return bytes(matrices.filter(({ dtype }) => ROUNDED_DTYPES[format].includes(dtype))) / bytes(matrices);
}

/**
 * `auto` rounds on the CPU where that applies to most of a model's matrices, by bytes, and is faster: to int8, which
 * adds as little to the rounding of such weights as that of Q8_0 itself; to bf16 where the processor multiplies bf16,
 * which costs a fraction of that. llama.cpp rounds the same. Elsewhere it is float32.
 */
export function chooseActivations(
  choice: ActivationsChoice,
  backend: 'cpu' | 'cuda',
  tensors: Matrices,
  describeMachine: () => { bf16Products: boolean },
): Activations {
  if (choice !== 'auto') return choice;
  if (backend !== 'cpu') return 'float32';
  if (roundedShare('int8', tensors) > 0.5) return 'int8';
  return roundedShare('bf16', tensors) > 0.5 && describeMachine().bf16Products ? 'bf16' : 'float32';
}
