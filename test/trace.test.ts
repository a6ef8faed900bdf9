import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import type { SessionOptions } from '../lib/engine/load_options.js';
import { loadModel } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import { MAX_TRACE } from '../lib/session/session.js';
import { expectSameBits, someIds } from './reference/engine.js';
import {
  referenceModel,
  referenceTrace,
  SEQUENTIAL,
  type ReferenceModel,
  type ReferencePlan,
} from './reference/forward.js';
import { maxDifference } from './reference/measure.js';
import { expectRejection } from './support/expect_code.js';
import { writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

const SHAPE = { dim: 60, hiddenDim: 84, headDim: 10, nHeads: 6, nKvHeads: 3, nLayers: 6, vocabSize: 101 };
const TOLERANCE = 1e-4;
const GROUPS = [
  [1, 2],
  [3, 4, 5],
];
const PLANS: ReferencePlan[] = [
  SEQUENTIAL,
  { groups: GROUPS, bypass: 0, bypassMode: 'paper' },
  { groups: GROUPS, bypass: 1, bypassMode: 'paper' },
  { groups: GROUPS, bypass: 1, bypassMode: 'official' },
];

describe('session.trace', () => {
  const folder = tempFolder();
  const ids = someIds(19, SHAPE.vocabSize);
  const models: Model[] = [];
  let reference: ReferenceModel;

  beforeAll(async () => {
    writeRandomModel(folder, { shape: SHAPE, format: 'huggingface', seed: 11 });
    reference = referenceModel(await openCheckpoint(folder));
    for (const threads of [1, 3]) models.push(await loadModel(folder, { threads }));
  });
  afterAll(() => Promise.all(models.map((model) => model.dispose())));

  /** Vectors by layer, part (x, a, m) and token. */
  function vectorsOf(trace: Float32Array, tokens: number): Float32Array[] {
    expect(trace).toHaveLength(SHAPE.nLayers * 3 * tokens * SHAPE.dim);
    return Array.from({ length: trace.length / SHAPE.dim }, (_, i) =>
      trace.subarray(i * SHAPE.dim, (i + 1) * SHAPE.dim),
    );
  }

  function openSession(
    model: Model,
    { groups, bypass, bypassMode }: ReferencePlan,
    execution: SessionOptions['execution'] = 'wide',
  ) {
    return model.createSession({ plan: { version: 1, layers: SHAPE.nLayers, groups, bypass, bypassMode }, execution });
  }

  it.each(PLANS)(
    '$groups, D=$bypass, $bypassMode: the reference in float64, and the same bits in every execution with any threads',
    async (plan) => {
      const expected = referenceTrace(reference, ids, plan).flatMap(({ x, a, m }) => [...x, ...a, ...m]);
      const first = vectorsOf(await openSession(models[0]!, plan).trace(ids), ids.length);
      expected.forEach((vector, i) => {
        const scale = Math.max(1, ...vector.map(Math.abs));
        expect(maxDifference(first[i]!, vector) / scale, `vector ${i}`).toBeLessThan(TOLERANCE);
      });
      for (const model of models) {
        for (const execution of ['wide', 'lanes', 'auto'] as const) {
          const trace = await openSession(model, plan, execution).trace(ids);
          expectSameBits(vectorsOf(trace, ids.length), first, `${execution}, ${model.threads} threads`);
        }
      }
    },
  );

  it('token by token gives the same vectors, and leaves the model where prefill would', async () => {
    const plan = PLANS[2]!;
    const [whole, single, plain] = [0, 1, 2].map(() => openSession(models[1]!, plan)) as [
      ReturnType<typeof openSession>,
      ReturnType<typeof openSession>,
      ReturnType<typeof openSession>,
    ];
    const expected = vectorsOf(await whole.trace(ids), ids.length);
    for (const [token, id] of ids.entries()) {
      const rows = expected.filter((_, i) => i % ids.length === token);
      expectSameBits(vectorsOf(await single.trace([id]), 1), rows, `token ${token}`);
    }
    await plain.prefill(ids);
    const logits = await plain.decode(7);
    expect(single.position).toBe(ids.length);
    expectSameBits([await whole.decode(7), await single.decode(7)], [logits, logits], 'the next token');
  });

  it('refuses more tokens than a trace takes, and what the other calls refuse', async () => {
    const session = models[0]!.createSession();
    await expectRejection(
      'INVALID_ARGUMENT',
      session.trace(someIds(MAX_TRACE + 1, SHAPE.vocabSize)),
      /tokens to trace is 33; expected at most 32/,
    );
    await expectRejection('INVALID_ARGUMENT', session.trace([]));
    await expectRejection('INVALID_ARGUMENT', session.trace([SHAPE.vocabSize]));
    await expectRejection('ABORTED', session.trace([1], { signal: AbortSignal.abort() }));
    expect(session.position).toBe(0);
    expect(await session.trace(someIds(MAX_TRACE, SHAPE.vocabSize))).toHaveLength(
      SHAPE.nLayers * 3 * MAX_TRACE * SHAPE.dim,
    );
    session.close();
    await expectRejection('DISPOSED', session.trace([1]));
  });
});
