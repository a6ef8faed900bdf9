import type { Checkpoint, TensorInfo } from '../checkpoint/types.js';

/** Bytes of all tensors. */
export function weightBytes(tensors: TensorInfo[]): number {
  return tensors.reduce((sum, tensor) => sum + tensor.byteLength, 0);
}

/**
 * Bytes of weights one decoded token reads: every weight once, but of an embedding that is not the output projection
 * too, one row.
 */
export function weightBytesPerToken({ config, tensors }: Pick<Checkpoint, 'config' | 'tensors'>): number {
  return tensors.reduce((sum, tensor) => {
    const rowOnly = tensor.role === 'token_embedding' && !config.tiedEmbeddings;
    return sum + (rowOnly ? tensor.byteLength / tensor.rows : tensor.byteLength);
  }, 0);
}
