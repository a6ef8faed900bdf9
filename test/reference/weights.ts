import { readFileSync } from 'node:fs';
import type { Checkpoint, TensorRole } from '../../lib/checkpoint/types.js';
import { dequantize } from './dequantize.js';

/** Row-major [rows, cols]. */
export interface Matrix {
  rows: number;
  cols: number;
  values: Float64Array;
}

export type Weights = (role: TensorRole, layer?: number) => Matrix | undefined;

/** Reads every tensor of a small checkpoint into float64. A role the model does not have gives undefined. */
export function readWeights(checkpoint: Checkpoint): Weights {
  const files = checkpoint.files.map((file) => readFileSync(file));
  const tensors = new Map<string, Matrix>();
  for (const { role, layer, dtype, rows, cols, file, offset, byteLength } of checkpoint.tensors) {
    const bytes = files[file]!.subarray(offset, offset + byteLength);
    tensors.set(`${role} ${layer}`, { rows, cols, values: dequantize(dtype, bytes, rows * cols) });
  }
  return (role, layer = -1) => tensors.get(`${role} ${layer}`);
}
