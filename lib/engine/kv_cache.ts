import { roundedShare, type Activations, type Matrices } from './activations.js';
import type { ModelConfig } from '../checkpoint/types.js';

/**
 * How keys and values are kept: float32, float16, or int8 in blocks of 32 along a head, each with a float16 scale
 * (GGUF's Q8_0).
 */
export const KV_CACHES = ['f32', 'f16', 'q8_0'] as const;
export type KvCache = (typeof KV_CACHES)[number];

/** What can be asked for: `auto` leaves it to the activations, see `chooseKvCache`. */
export const KV_CACHE_CHOICES = ['auto', ...KV_CACHES] as const;
export type KvCacheChoice = (typeof KV_CACHE_CHOICES)[number];

/**
 * `auto` rounds keys and values to f16 where most of a model's matrices, by bytes, are multiplied with rounded
 * activations, which cost more. Elsewhere it leaves them in f32, for log-probabilities that are within 1e-4 of float64.
 */
export function chooseKvCache(choice: KvCacheChoice, activations: Activations, tensors: Matrices): KvCache {
  if (choice !== 'auto') return choice;
  return activations !== 'float32' && roundedShare(activations, tensors) > 0.5 ? 'f16' : 'f32';
}

/** Bytes of the KV cache per position: a key and a value of every key/value head in every layer. */
export function kvBytesPerPosition(
  { nLayers, nKvHeads, headDim }: Pick<ModelConfig, 'nLayers' | 'nKvHeads' | 'headDim'>,
  kvCache: KvCache,
): number {
  const vector = { f32: 4 * headDim, f16: 2 * headDim, q8_0: 34 * Math.ceil(headDim / 32) }[kvCache];
  return 2 * nLayers * nKvHeads * vector;
}
