import { readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { textBeside } from '../lib/cli/text_file.js';
import { comparePlans } from '../lib/analysis/eval/compare_plans.js';
import { modelWindows } from '../lib/analysis/eval/perplexity.js';
import { loadModel, shippedModelPath } from '../lib/model/load.js';
import { resolvePlan } from '../lib/plan/plan.js';

const TOKENS = 400;
const plans = path.join(path.dirname(shippedModelPath()), 'plans');

describe('the model that ships', () => {
  it('is deep, small, and says so', async () => {
    const { config, tensors } = await openCheckpoint(shippedModelPath());
    const parameters = tensors.reduce((sum, { rows, cols }) => sum + rows * cols, 0);
    expect(config.nLayers).toBe(24);
    expect(parameters).toBeGreaterThan(8e6);
    expect(parameters).toBeLessThan(14e6);
    expect(statSync(shippedModelPath()).size).toBeLessThan(16e6);
    const card = readFileSync(path.join(path.dirname(shippedModelPath()), 'README.md'), 'utf8');
    expect(card).toContain(`${(parameters / 1e6).toFixed(1)} million`);
  });

  it('tells more than chance of a text that training did not see', async () => {
    await using model = await loadModel();
    const ids = model.tokenizer.encode(readFileSync(textBeside(shippedModelPath()), 'utf8'));
    const [sequential] = await comparePlans(
      model,
      [model.plan],
      modelWindows(model, ids.slice(0, TOKENS), TOKENS, 'gptq'),
    );
    expect(sequential!.perplexity).toBeLessThan(40);
  });

  it.each(readdirSync(plans))('%s: its adapter takes away half of what the plan costs', async (file) => {
    await using model = await loadModel(shippedModelPath(), { activations: 'float32' });
    const ids = model.tokenizer.encode(readFileSync(textBeside(shippedModelPath()), 'utf8')).slice(0, TOKENS);
    const adapted = await model.prepare(path.join(plans, file));
    const bare = resolvePlan({ ...adapted, adapter: undefined }, model.config.nLayers);
    const [, without, withAdapter] = await comparePlans(
      model,
      [resolvePlan('sequential', model.config.nLayers), bare, adapted],
      modelWindows(model, ids, TOKENS, 'gptq'),
    );
    expect(without!.kl.mean).toBeGreaterThan(0.02);
    expect(withAdapter!.kl.mean).toBeLessThan(without!.kl.mean / 2);
  });
});
