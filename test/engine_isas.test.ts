import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import type { DType } from '../lib/checkpoint/types.js';
import { loadModel } from '../lib/model/load.js';
import { describeMachine } from '../lib/engine/machine.js';
import { decodeAll, expectSameBits, someIds } from './reference/engine.js';
import { logSoftmax, referenceLogProbs, referenceModel } from './reference/forward.js';
import { maxDifference } from './reference/measure.js';
import { writeRandomModel } from './support/random_model.js';

describe('every instruction set this machine has', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'cqil-isas-'));
  const supported = describeMachine()
    .isas.filter((isa) => isa.supported)
    .map((isa) => isa.name);
  const plan = { version: 1, layers: 3, groups: [[1, 2]], bypass: 1, bypassMode: 'paper' as const };
  const shape = { dim: 256, hiddenDim: 256, headDim: 64, nHeads: 4, nKvHeads: 2, nLayers: 3, vocabSize: 99 };
  const ids = someIds(20, shape.vocabSize);

  // Read by the addon whenever a model is loaded.
  afterEach(() => delete process.env['CQIL_ISA']);
  afterAll(() => rmSync(folder, { recursive: true }));

  /** Logits after each id, token by token, and after all of them in one piece, under a plan. */
  async function logitsWith(isa: string, file: string): Promise<{ rows: Float32Array[]; last: Float32Array }> {
    process.env['CQIL_ISA'] = isa;
    expect(describeMachine().isa).toBe(isa);
    const model = await loadModel(file, { threads: 2, plan: { ...plan }, activations: 'float32' });
    const rows = await decodeAll(model.createSession(), ids);
    const last = await model.createSession().prefill(ids);
    await model.dispose();
    return { rows, last };
  }

  it.each<DType>(['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_K', 'Q5_K', 'Q6_K'])(
    '%s: within 1e-4 of the reference, and prefill has the bits of decode',
    async (dtype) => {
      const file = path.join(folder, `${dtype}.gguf`);
      writeRandomModel(file, { format: 'gguf', dtype, shape, seed: 31 });
      const expected = referenceLogProbs(referenceModel(await openCheckpoint(file)), ids, plan);
      for (const isa of supported) {
        const { rows, last } = await logitsWith(isa, file);
        const worst = Math.max(...rows.map((row, i) => maxDifference(logSoftmax(row), expected[i]!)));
        expect(worst, isa).toBeLessThan(1e-4);
        expectSameBits([last], [rows.at(-1)!], isa);
      }
    },
  );
});
