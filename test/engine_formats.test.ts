import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import type { Architecture, DType } from '../lib/checkpoint/types.js';
import { loadModel } from '../lib/model/load.js';
import { engineLogProbs, someIds } from './reference/engine.js';
import { referenceLogProbs, referenceModel } from './reference/forward.js';
import { maxDifference } from './reference/measure.js';
import { writeRandomModel, type RandomModelOptions } from './support/random_model.js';

/**
 * Largest |Δ log-probability| (nats) against float64 on the very weights the file holds. The engine widens weights to
 * float32 and keeps activations in float32 whatever the format, so one bound holds for all.
 */
const TOLERANCE = 1e-4;

describe('the engine against the float64 reference', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'cqil-formats-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  let files = 0;

  async function worstDifference(options: RandomModelOptions, count: number): Promise<number> {
    const name = `${files++}${options.format === 'gguf' ? '.gguf' : ''}`;
    const file = writeRandomModel(path.join(folder, name), options);
    const checkpoint = await openCheckpoint(file);
    const ids = someIds(count, checkpoint.config.vocabSize);
    const expected = referenceLogProbs(referenceModel(checkpoint), ids);
    const model = await loadModel(file, { threads: 2, activations: 'float32' });
    const rows = await engineLogProbs(model.createSession(), ids);
    const prefilled = await model.createSession().score(ids);
    await model.dispose();
    const scores = ids.slice(1).map((id, i) => expected[i]![id]!);
    return Math.max(maxDifference(prefilled, scores), ...rows.map((row, i) => maxDifference(row, expected[i]!)));
  }

  // Widths are whole blocks of every format, the numbers of rows are odd.
  const shape = { dim: 256, hiddenDim: 512, headDim: 64, nHeads: 4, nKvHeads: 1, nLayers: 2, vocabSize: 261 };

  it.each<[RandomModelOptions['format'], DType]>([
    ['huggingface', 'F32'],
    ['huggingface', 'F16'],
    ['huggingface', 'BF16'],
    ['gguf', 'F32'],
    ['gguf', 'F16'],
    ['gguf', 'BF16'],
    ['gguf', 'Q8_0'],
    ['gguf', 'Q4_0'],
    ['gguf', 'Q4_K'],
    ['gguf', 'Q5_K'],
    ['gguf', 'Q6_K'],
  ])('%s %s', async (format, dtype) => {
    expect(await worstDifference({ format, dtype, shape, seed: 11 }, 12)).toBeLessThan(TOLERANCE);
  });

  it.each<[Architecture, RandomModelOptions['format']]>([
    ['llama', 'gguf'],
    ['qwen2', 'gguf'],
    ['qwen3', 'gguf'],
    ['mistral', 'huggingface'],
  ])('%s in %s, tied and with biases, odd widths', async (architecture, format) => {
    const odd = { dim: 44, hiddenDim: 75, headDim: 6, nHeads: 9, nKvHeads: 3, nLayers: 3, vocabSize: 67, tied: true };
    const attentionBias = architecture === 'llama' || architecture === 'qwen2';
    expect(await worstDifference({ architecture, format, shape: odd, attentionBias, seed: 13 }, 40)).toBeLessThan(
      TOLERANCE,
    );
  });

  it.each([1, 2, 8, 255])('a sliding window of %i positions, far beyond it', async (window) => {
    const options = {
      architecture: 'mistral',
      format: 'huggingface',
      shape: { contextLength: 512 },
      config: { sliding_window: window },
    } as const;
    expect(await worstDifference(options, 300)).toBeLessThan(TOLERANCE);
  });
});
