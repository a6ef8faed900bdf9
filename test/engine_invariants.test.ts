import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { loadModel } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import type { Session } from '../lib/session/session.js';
import { decodeAll, expectSameBits, someIds } from './reference/engine.js';
import { logSoftmax, referenceLogProbs, referenceModel } from './reference/forward.js';
import { maxDifference } from './reference/measure.js';
import { expectRejection } from './support/expect_code.js';
import { writeRandomModel } from './support/random_model.js';

// Longer than one native call takes (MAX_BATCH), so that whole texts go in more than one piece anyway.
const LENGTH = 300;
const PLAN = { version: 1, layers: 4, groups: [[1, 2, 3]], bypass: 1, bypassMode: 'paper' };

describe('how a text is fed changes no bit', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'cqil-invariants-'));
  const ids = someIds(LENGTH, 101);
  let model: Model;
  /** Logits after every token, one decode each. */
  let rows: Float32Array[];

  beforeAll(async () => {
    const shape = {
      dim: 60,
      hiddenDim: 84,
      headDim: 10,
      nHeads: 6,
      nKvHeads: 3,
      nLayers: 4,
      vocabSize: 101,
      contextLength: LENGTH,
    };
    writeRandomModel(folder, { shape, format: 'huggingface', dtype: 'F32', seed: 3 });
    model = await loadModel(folder, { threads: 2, plan: PLAN });
    rows = await inSession((session) => decodeAll(session, ids));
  });

  afterAll(async () => {
    await model.dispose();
    rmSync(folder, { recursive: true });
  });

  async function inSession<T>(use: (session: Session) => Promise<T>): Promise<T> {
    const session = model.createSession({ contextLength: LENGTH });
    try {
      return await use(session);
    } finally {
      session.close();
    }
  }

  it.each([
    [[300]],
    [[1, 299]],
    [[299, 1]],
    [[256, 44]],
    [[255, 45]],
    [[3, 5, 7, 11, 13, 17, 19, 225]],
    [[100, 100, 100]],
  ])('prefill in pieces of %j', async (pieces) => {
    await inSession(async (session) => {
      let at = 0;
      for (const piece of pieces) {
        const logits = await session.prefill(ids.slice(at, at + piece));
        at += piece;
        expect(session.position).toBe(at);
        expectSameBits([logits], [rows[at - 1]!], `after ${at} tokens`);
      }
    });
  });

  it('score is the log-softmax of the logits, in one piece and in several', async () => {
    const expected = ids.slice(1).map((id, i) => logSoftmax(rows[i]!)[id]!);
    const whole = await inSession((session) => session.score(ids));
    // The logits are the same floats; only the log-softmax itself is rounded to float32.
    expect(maxDifference(whole, expected)).toBeLessThan(5e-6);
    await inSession(async (session) => {
      await session.prefill(ids.slice(0, 70));
      expectSameBits([await session.score(ids.slice(70, 200))], [whole.slice(70, 199)], 'middle');
      expectSameBits([await session.score(ids.slice(200))], [whole.slice(200)], 'end');
      expect(session.position).toBe(LENGTH);
    });
  });

  it('truncating and decoding again gives the same logits, also after other tokens were there', async () => {
    await inSession(async (session) => {
      await session.prefill(ids);
      for (const position of [299, 256, 17, 1, 0]) {
        session.truncate(position);
        await session.prefill(someIds(LENGTH - position, 101, 99));
        session.truncate(position);
        expectSameBits([await session.decode(ids[position]!)], [rows[position]!], `at ${position}`);
      }
    });
  });

  it('sessions side by side do not touch each other', async () => {
    const sessions = [0, 1, 2].map(() => model.createSession({ contextLength: LENGTH }));
    const results = await Promise.all(sessions.map((session, i) => session.prefill(ids.slice(0, 100 * (i + 1)))));
    results.forEach((logits, i) => expectSameBits([logits], [rows[100 * (i + 1) - 1]!], `session ${i}`));
    sessions.forEach((session) => session.close());
  });

  it('every thread count gives the same bits over a long text', async () => {
    for (const threads of [1, 3]) {
      const other = await loadModel(folder, { threads, plan: PLAN });
      const session = other.createSession({ contextLength: LENGTH });
      expectSameBits([await session.prefill(ids)], [rows.at(-1)!], `${threads} threads`);
      await other.dispose();
    }
  });

  it('small layers computed by one thread give the same bits, until what is cached makes them large', async () => {
    const { tensors } = await openCheckpoint(folder);
    const layer = tensors
      .filter((tensor) => tensor.layer === 0 && tensor.rows > 1)
      .reduce((sum, { byteLength }) => sum + byteLength, 0);
    for (const limit of [layer + 100_000, 1e9]) {
      vi.stubEnv('CQIL_ALONE_BYTES', String(limit));
      await using alone = await loadModel(folder, { threads: 3, plan: PLAN });
      for (const execution of ['wide', 'lanes'] as const) {
        expectSameBits(
          await decodeAll(alone.createSession({ execution }), ids),
          rows,
          `${execution}, up to ${limit} bytes`,
        );
      }
    }
    vi.stubEnv('CQIL_ALONE_BYTES', '1.5');
    await expectRejection('INVALID_ARGUMENT', loadModel(folder), /CQIL_ALONE_BYTES is '1.5'; expected an integer/);
    vi.unstubAllEnvs();
  });

  it('the last position still agrees with the reference', async () => {
    const reference = referenceModel(await openCheckpoint(folder));
    const expected = referenceLogProbs(reference, ids, { groups: PLAN.groups, bypass: 1, bypassMode: 'paper' });
    expect(maxDifference(logSoftmax(rows.at(-1)!), expected.at(-1)!)).toBeLessThan(1e-4);
  });
});
