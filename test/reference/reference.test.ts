import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { openCheckpoint } from '../../lib/checkpoint/open.js';
import type { DType } from '../../lib/checkpoint/types.js';
import { describeShared, sharedData } from '../support/shared_data.js';
import { dequantize } from './dequantize.js';
import { logSoftmax, referenceLogits, referenceLogProbs, referenceModel } from './forward.js';
import { goldenFolder, goldenModels, readBlocks, readGolden } from './goldens.js';
import { argmax, maxDifference, nextLogProbs } from './measure.js';

// The goldens are rounded at the ninth decimal; both sides are float64.
const GOLDEN_TOLERANCE = 2e-8;

describe.each(goldenModels())('the reference on %s against transformers', (name) => {
  const golden = readGolden(name);

  it('gives the same rows of log-probabilities', async () => {
    const model = referenceModel(await openCheckpoint(goldenFolder(name)));
    const rows = referenceLogProbs(model, golden.ids);
    for (const [position, row] of Object.entries(golden.logProbs)) {
      expect(maxDifference(rows[Number(position)]!, row), `position ${position}`).toBeLessThan(GOLDEN_TOLERANCE);
    }
  });

  it('gives the same log-probability of every next token, with every plan', async () => {
    const model = referenceModel(await openCheckpoint(goldenFolder(name)));
    for (const plan of golden.plans) {
      const rows = referenceLogProbs(model, golden.ids, plan);
      const { nextLogProbs: expected, ...label } = plan;
      expect(maxDifference(nextLogProbs(rows, golden.ids), expected), JSON.stringify(label)).toBeLessThan(
        GOLDEN_TOLERANCE,
      );
    }
  });
});

describe('the reference reads every block format', () => {
  it.each(Object.entries(readBlocks()))('%s as ggml does', (dtype, { bytes, values }) => {
    const read = dequantize(dtype as DType, Buffer.from(bytes, 'hex'), values.length);
    expect(maxDifference(read, values)).toBe(0);
  });
});

interface SharedGolden {
  cases: Array<{
    ids: number[];
    nll_sum: number;
    nll_per_token: number[];
    last_top5: Array<[id: number, logit: number]>;
  }>;
}

describeShared('the reference on trained models', () => {
  it.each(['stories260K', 'babyllama-tok105'])('%s: negative log-likelihoods and last logits', async (name) => {
    const golden = JSON.parse(readFileSync(sharedData('models', name, 'golden.json'), 'utf8')) as SharedGolden;
    const model = referenceModel(await openCheckpoint(sharedData('models', name, 'hf')));
    for (const { ids, nll_sum, nll_per_token, last_top5 } of golden.cases) {
      const logits = referenceLogits(model, ids);
      const scores = nextLogProbs(logits.map(logSoftmax), ids);
      expect(-scores.reduce((total, score) => total + score, 0)).toBeCloseTo(nll_sum, 6);
      expect(
        maxDifference(
          scores.map((score) => -score),
          nll_per_token,
        ),
      ).toBeLessThan(6e-6);
      const last = logits.at(-1)!;
      expect(argmax(last)).toBe(last_top5[0]![0]);
      for (const [id, logit] of last_top5) expect(last[id]).toBeCloseTo(logit, 4);
    }
  });

  it('stories260K.gguf gives what its Hugging Face folder gives', async () => {
    const ids = Array.from({ length: 64 }, (_, i) => (i * 37 + 1) % 512);
    const folder = referenceModel(await openCheckpoint(sharedData('models/stories260K/hf')));
    const file = referenceModel(await openCheckpoint(sharedData('models/stories260K/stories260Ktok512.gguf')));
    const expected = referenceLogProbs(folder, ids);
    referenceLogProbs(file, ids).forEach((row, i) => expect(maxDifference(row, expected[i]!)).toBeLessThan(1e-6));
  });
});
