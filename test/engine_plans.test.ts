import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { loadModel } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import { decodeAll, expectSameBits, someIds } from './reference/engine.js';
import {
  logSoftmax,
  referenceLogProbs,
  referenceModel,
  type ReferenceModel,
  type ReferencePlan,
} from './reference/forward.js';
import { maxDifference } from './reference/measure.js';
import { writeRandomModel } from './support/random_model.js';

const TOLERANCE = 1e-4;
const THREADS = [1, 2, 3];
const EXECUTIONS = ['wide', 'lanes'] as const;

const LAYERS = 9;
const GROUPS: Record<string, number[][]> = {
  P2: [
    [1, 2],
    [3, 4],
    [5, 6],
  ],
  P3: [
    [1, 2, 3],
    [4, 5, 6],
  ],
  P4: [
    [0, 1, 2, 3],
    [4, 5, 6, 7],
  ],
  'P2, P4 and P3 with a layer between': [
    [0, 1],
    [2, 3, 4, 5],
    [6, 7, 8],
  ],
};

const PLANS = Object.entries(GROUPS).flatMap(([name, groups]) =>
  [0, 1, 2].flatMap((bypass) =>
    (['paper', 'official'] as const).map((bypassMode) => ({ name, groups, bypass, bypassMode })),
  ),
);

describe('plans on the engine', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'cqil-plans-'));
  const ids = someIds(19, 101);
  const models: Model[] = [];
  let reference: ReferenceModel;

  beforeAll(async () => {
    // No size is a power of two, and the widths are no multiple of any vector register's.
    const shape = { dim: 60, hiddenDim: 84, headDim: 10, nHeads: 6, nKvHeads: 3, nLayers: LAYERS, vocabSize: 101 };
    writeRandomModel(folder, { shape, format: 'huggingface', dtype: 'F32', seed: 7 });
    reference = referenceModel(await openCheckpoint(folder));
    for (const threads of THREADS) models.push(await loadModel(folder, { threads }));
  });

  afterAll(async () => {
    await Promise.all(models.map((model) => model.dispose()));
    rmSync(folder, { recursive: true });
  });

  async function rowsOf(
    model: Model,
    plan: ReferencePlan,
    execution: (typeof EXECUTIONS)[number],
  ): Promise<Float32Array[]> {
    const { groups, bypass, bypassMode } = plan;
    const session = model.createSession({
      plan: { version: 1, layers: LAYERS, groups, bypass, bypassMode },
      execution,
    });
    const rows = await decodeAll(session, ids);
    session.close();
    return rows;
  }

  it.each(PLANS)(
    '$name, D=$bypass, $bypassMode: the formula, and the same bits in every execution with any threads',
    async (plan) => {
      const expected = referenceLogProbs(reference, ids, plan);
      const first = await rowsOf(models[0]!, plan, 'wide');
      const worst = Math.max(...first.map((row, i) => maxDifference(logSoftmax(row), expected[i]!)));
      expect(worst).toBeLessThan(TOLERANCE);
      for (const model of models) {
        for (const execution of EXECUTIONS) {
          expectSameBits(await rowsOf(model, plan, execution), first, `${execution}, ${model.threads} threads`);
        }
      }
    },
  );

  it('a plan without groups of two or more is the ordinary model, bit for bit', async () => {
    const sequential = await rowsOf(models[0]!, { groups: [], bypass: 0, bypassMode: 'paper' }, 'wide');
    const worst = Math.max(
      ...sequential.map((row, i) => maxDifference(logSoftmax(row), referenceLogProbs(reference, ids)[i]!)),
    );
    expect(worst).toBeLessThan(TOLERANCE);
    for (const model of models) {
      for (const execution of EXECUTIONS) {
        for (const plan of ['P1-D0-S0-E9', 'P1-D2-S2-E7', 'sequential']) {
          const session = model.createSession({ plan, execution });
          expectSameBits(await decodeAll(session, ids), sequential, `${plan}, ${execution}, ${model.threads} threads`);
          session.close();
        }
      }
    }
  });

  it('no two of these plans compute the same', () => {
    // Guards the tests above: plans that happened to agree would prove nothing. D beyond p − 1 is p − 1, and D = 0
    // knows no mode.
    const distinct = PLANS.filter(
      ({ groups, bypass, bypassMode }) =>
        bypass < Math.max(...groups.map((group) => group.length)) && (bypass > 0 || bypassMode === 'paper'),
    );
    const last = distinct.map((plan) => referenceLogProbs(reference, ids, plan).at(-1)!);
    last.forEach((row, i) =>
      last.slice(i + 1).forEach((other) => expect(maxDifference(row, other)).toBeGreaterThan(100 * TOLERANCE)),
    );
  });
});
