import type { Checkpoint, ModelConfig, TensorInfo } from '../checkpoint/types.js';

/** Bytes of all tensors. */
export function weightBytes(tensors: TensorInfo[]): number {
  return tensors.reduce((sum, tensor) => sum + tensor.byteLength, 0);
}

/**
 * Bytes of weights one decoded token reads: every weight once, but of an embedding that is not the output projection too, one row.
 */
export function weightBytesPerToken({ config, tensors }: Pick<Checkpoint, 'config' | 'tensors'>): number {
  return tensors.reduce((sum, tensor) => {
    const rowOnly = tensor.role === 'token_embedding' && !config.tiedEmbeddings;
    return sum + (rowOnly ? tensor.byteLength / tensor.rows : tensor.byteLength);
  }, 0);
}

/** Bytes of the KV cache per position: a key and a value of every key/value head in every layer, as float32. */
export function kvBytesPerPosition(config: ModelConfig): number {
  return 2 * config.nLayers * config.nKvHeads * config.headDim * Float32Array.BYTES_PER_ELEMENT;
}
