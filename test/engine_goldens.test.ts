import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadModel } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import { engineLogProbs } from './reference/engine.js';
import { goldenFolder, goldenModels, readGolden } from './reference/goldens.js';
import { maxDifference } from './reference/measure.js';

// The engine computes in float32; the goldens are float64 on the same stored weights.
const TOLERANCE = 1e-4;

for (const name of goldenModels()) {
  describe(`the engine on ${name} against transformers`, () => {
    const golden = readGolden(name);
    let model: Model;
    beforeAll(async () => {
      model = await loadModel(goldenFolder(name), { threads: 2, activations: 'float32' });
    });
    afterAll(() => model.dispose());

    it('gives the same rows of log-probabilities, token by token', async () => {
      const session = model.createSession();
      const rows = await engineLogProbs(session, golden.ids);
      session.close();
      for (const [position, row] of Object.entries(golden.logProbs)) {
        expect(maxDifference(rows[Number(position)]!, row), `position ${position}`).toBeLessThan(TOLERANCE);
      }
    });

    it.each(golden.plans.flatMap((plan) => (['wide', 'lanes'] as const).map((execution) => ({ execution, ...plan }))))(
      'scores every next token the same: $groups D=$bypass $bypassMode, $execution',
      async ({ execution, groups, bypass, bypassMode, nextLogProbs }) => {
        const plan = { version: 1, layers: model.config.nLayers, groups, bypass, bypassMode };
        const session = model.createSession({ plan, execution });
        const scores = await session.score(golden.ids);
        session.close();
        expect(maxDifference(scores, nextLogProbs)).toBeLessThan(TOLERANCE);
      },
    );
  });
}
