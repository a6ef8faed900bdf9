import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { textBeside } from '../lib/cli/text_file.js';
import { shippedModelPath } from '../lib/model/load.js';
import { resolvePlan } from '../lib/plan/plan.js';
import { loadTokenizer } from '../lib/tokenizer/index.js';
import { referenceLogProbs, referenceModel } from './reference/forward.js';
import { nextLogProbs } from './reference/measure.js';
import { cqil } from './support/cli.js';
import { tempFolder } from './support/temp_folder.js';

const WINDOW = 64;

describe('cqil perplexity on the model that ships', () => {
  const folder = tempFolder();

  it.each(['sequential', 'P2-S4-E12', 'P3-D2-S3-E13'])(
    '%s: the mean of the float64 reference, within 1e-4 nats',
    async (spec) => {
      const checkpoint = await openCheckpoint(shippedModelPath());
      const text = readFileSync(textBeside(shippedModelPath()), 'utf8').slice(0, 500);
      const ids = (await loadTokenizer(await checkpoint.readTokenizer())).encode(text);
      const plan = resolvePlan(spec, checkpoint.config.nLayers);
      const model = referenceModel(checkpoint);
      const scores: number[] = [];
      for (let from = 0; from + 1 < ids.length; from += WINDOW) {
        const window = ids.slice(from, from + WINDOW);
        scores.push(...nextLogProbs(referenceLogProbs(model, window, plan), window));
      }
      const file = path.join(folder, 'text.txt');
      writeFileSync(file, text);
      const run = await cqil([
        'perplexity',
        '--file',
        file,
        '--window',
        String(WINDOW),
        '--plan',
        spec,
        '--activations',
        'float32',
        '--json',
      ]);
      const measured = JSON.parse(run.stdout) as { tokens: number; nll: number };
      expect(measured.tokens).toBe(scores.length);
      expect(Math.abs(measured.nll + scores.reduce((a, b) => a + b) / scores.length)).toBeLessThan(1e-4);
    },
  );
});
