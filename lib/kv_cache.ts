import type { ModelConfig } from './checkpoint/types.js';

/** How keys and values are kept: float32, float16, or int8 in blocks of 32 along a head, each with a float16 scale (GGUF's Q8_0). */
export const KV_CACHES = ['f32', 'f16', 'q8_0'] as const;
export type KvCache = (typeof KV_CACHES)[number];

/** Bytes of the KV cache per position: a key and a value of every key/value head in every layer. */
export function kvBytesPerPosition({ nLayers, nKvHeads, headDim }: Pick<ModelConfig, 'nLayers' | 'nKvHeads' | 'headDim'>, kvCache: KvCache): number {
  const vector = { f32: 4 * headDim, f16: 2 * headDim, q8_0: 34 * Math.ceil(headDim / 32) }[kvCache];
  return 2 * nLayers * nKvHeads * vector;
}
