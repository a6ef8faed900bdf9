import { closeSync, openSync, writeSync } from 'node:fs';
import { openCheckpoint } from '../../lib/checkpoint/open.js';
import type { Checkpoint, DType, ModelConfig } from '../../lib/checkpoint/types.js';
import { encode } from '../support/encode.js';
import { writeRandomModel } from '../support/random_model.js';
import { readWeights } from './weights.js';

/**
 * Writes a llama checkpoint as a GGUF file that any engine loads, its matrices in `dtype`: a random model of its shape,
 * with the weights replaced where they lie. The vocabulary is a made-up one of the same size, or none below 260 tokens.
 */
export async function rewriteAsGguf(source: Checkpoint, file: string, dtype: DType = 'F32'): Promise<void> {
  const { dim, hiddenDim, headDim, nHeads, nKvHeads, nLayers, vocabSize, contextLength, tiedEmbeddings } =
    source.config;
  const shape = { dim, hiddenDim, headDim, nHeads, nKvHeads, nLayers, vocabSize, contextLength, tied: tiedEmbeddings };
  writeRandomModel(file, { format: 'gguf', dtype, shape, vocabulary: vocabSize >= 260 });
  const target = await openCheckpoint(file);
  expectSameModel(source.config, target.config);

  const weights = readWeights(source);
  const fd = openSync(file, 'r+');
  for (const { role, layer, dtype: stored, cols, offset } of target.tensors) {
    const { values } = weights(role, layer)!;
    const ordered =
      !source.config.ropeInterleaved && (role === 'wq' || role === 'wk')
        ? interleavePairs(values, cols, headDim)
        : values;
    writeSync(fd, encode(stored, ordered), 0, undefined, offset);
  }
  closeSync(fd);
}

/** Rows (i, i + headDim/2) of each head, as Hugging Face keeps them, to rows (2i, 2i + 1). */
function interleavePairs(values: Float64Array, cols: number, headDim: number): Float64Array {
  const out = new Float64Array(values.length);
  for (let row = 0; row < values.length / cols; row++) {
    const i = row % headDim;
    const half = headDim / 2;
    const to = row - i + (i < half ? 2 * i : 2 * (i - half) + 1);
    out.set(values.subarray(row * cols, (row + 1) * cols), to * cols);
  }
  return out;
}

/** What the shape does not say must be what random models are written with. */
function expectSameModel(source: ModelConfig, target: ModelConfig): void {
  const rest = (config: ModelConfig): string =>
    JSON.stringify([
      Math.fround(config.normEps),
      [...config.ropeFrequencies],
      config.ropeAttentionFactor,
      config.layers,
    ]);
  if (source.architecture !== 'llama' || rest(source) !== rest(target))
    throw new Error('only plain llama models can be rewritten as GGUF here');
}
