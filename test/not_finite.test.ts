import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { TensorRole } from '../lib/checkpoint/types.js';
import { comparePlans } from '../lib/analysis/eval/compare_plans.js';
import { measurePerplexity, modelWindows } from '../lib/analysis/eval/perplexity.js';
import { loadNative } from '../lib/engine/addon.js';
import { loadModel } from '../lib/model/load.js';
import { measureSimilarity } from '../lib/analysis/similarity/measure_similarity.js';
import type { Model } from '../lib/model/model.js';
import type { Session } from '../lib/session/session.js';
import { resolvePlan } from '../lib/plan/plan.js';
import { someIds } from './reference/engine.js';
import { cqil } from './support/cli.js';
import { expectRejection } from './support/expect_code.js';
import { writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

const folder = tempFolder();
const shape = { vocabSize: 300, nLayers: 4 };

/** A model of which one value is wrong. */
function write(name: string, role: TensorRole, value: number): string {
  return writeRandomModel(path.join(folder, `${name}.gguf`), {
    format: 'gguf',
    shape,
    vocabulary: true,
    architecture: 'qwen2', // with biases
    metadata: {},
    change: (of, layer, values) => {
      if (of === role && layer === 2) values[5] = value;
    },
  });
}

describe('a model whose weights are not finite', () => {
  const ids = someIds(40, shape.vocabSize);
  let file: string;
  let model: Model;

  beforeAll(async () => {
    file = write('nan', 'wk', NaN);
    model = await loadModel(file, { threads: 2 });
  });
  afterAll(() => model.dispose());

  it.each<[string, (model: Model) => Promise<unknown>]>([
    ['prefill', (m) => m.createSession().prefill(ids)],
    ['decode', (m) => m.createSession().decode(1)],
    ['score', (m) => m.createSession().score(ids)],
    ['shortlist', (m) => m.createSession().shortlist(ids, 5)],
    ['shortlist of one token, going ahead', (m) => m.createSession().shortlist([1], 5, { ahead: true })],
    ['logits', (m) => m.createSession().logits(ids.slice(0, 8))],
    ['timeline', (m) => m.createSession().timeline(1)],
    ['a prompt of several slices', (m) => m.createSession().prefill(someIds(100, shape.vocabSize))],
    ['generate, greedily', async (m) => m.generate(ids, { temperature: 0 })],
    ['generate, from all logits', async (m) => m.generate(ids, { topP: 0.9, repetitionPenalty: 1.1 })],
    ['generate, with a plan', async (m) => m.generate(ids, { plan: 'P2-S1-E3' })],
    ['measurePerplexity', (m) => measurePerplexity(m, resolvePlan('sequential', shape.nLayers), ids, 20)],
    [
      'comparePlans',
      (m) => comparePlans(m, [resolvePlan('P2-S1-E3', shape.nLayers)], modelWindows(m, ids, 20, 'gptq')),
    ],
    ['measureSimilarity', (m) => measureSimilarity(m, ids)],
  ])('is told of by %s', async (_, call) => {
    await expectRejection('NOT_FINITE', call(model));
  });

  it.each([
    ['generate', ['-p', 'a b c', '-n', '5']],
    ['perplexity', ['--file', 'TEXT']],
    ['eval', ['--file', 'TEXT', '--plan', 'P2-S1-E3']],
    ['inspect similarity', ['--file', 'TEXT']],
  ])('is told of by cqil %s', async (verb, args) => {
    const text = path.join(folder, 'text.txt');
    const { writeFileSync } = await import('node:fs');
    writeFileSync(text, 'some words that the vocabulary may know or not, a b c d e f g '.repeat(3));
    const { code, stdout, stderr } = await cqil([
      ...verb.split(' '),
      file,
      ...args.map((arg) => (arg === 'TEXT' ? text : arg)),
    ]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/not finite|not numbers/);
    expect(stderr).toMatch(/\(NOT_FINITE\)\n$/);
  });

  it('says after which token, and what was expected', async () => {
    const session = model.createSession();
    await expectRejection('NOT_FINITE', session.score(ids), /position 0 are not finite: expected weights without NaN/);
    await expectRejection('NOT_FINITE', session.prefill(ids), /position 39 are not finite/);
    expect(session.position).toBe(0);
  });
});

describe('a token whose embedding is not finite', () => {
  const BAD = 7;
  let model: Model;
  beforeAll(async () => {
    const file = writeRandomModel(path.join(folder, 'bad-token.gguf'), {
      format: 'gguf',
      shape,
      metadata: {},
      change: (role, _, values) => {
        if (role === 'token_embedding') values[BAD * (values.length / shape.vocabSize)] = Infinity;
      },
    });
    model = await loadModel(file, { threads: 2 });
  });
  afterAll(() => model.dispose());

  it('fails the texts that hold it, and no other of the same forward', async () => {
    const good = (seed: number): number[] =>
      someIds(6 + seed, shape.vocabSize, seed).map((id) => (id === BAD ? 8 : id));
    const texts = [good(1), [...good(2), BAD, 1], good(3), [BAD], good(5)];
    const calls = texts.map((ids, i) => (session: Session) => {
      if (i % 3 === 0) return session.prefill(ids);
      return i % 3 === 1 ? session.shortlist(ids, 4) : session.score(ids);
    });
    const sessions = () => texts.map(() => model.createSession());
    const [apart, joined] = [sessions(), sessions()];
    const alone = [];
    for (const [i, call] of calls.entries()) alone.push((await Promise.allSettled([call(apart[i]!)]))[0]);
    expect(alone.map(({ status }) => status === 'fulfilled')).toEqual([true, false, true, false, true]);
    const together = vi.spyOn(loadNative(), 'forwardTogether');
    const found = await Promise.allSettled(calls.map((call, i) => call(joined[i]!)));
    expect(together.mock.calls.map(([given]) => given.length)).toEqual([texts.length]);
    together.mockRestore();
    for (const [i, { status }] of alone.entries()) {
      if (status === 'fulfilled') expect(found[i]).toEqual(alone[i]);
      else expect(found[i]).toMatchObject({ status, reason: { code: 'NOT_FINITE' } });
    }
    // What failed is not in the cache, and the session can go on.
    expect(joined.map(({ position }) => position)).toEqual(apart.map(({ position }) => position));
    expect(await joined[1]!.prefill(texts[0]!)).toEqual(alone[0]!.status === 'fulfilled' && alone[0]!.value);
    for (const session of [...apart, ...joined]) session.close();
  });
});

describe('keys that the KV cache does not hold', () => {
  it.each([
    [1e6, 'f16', 65504],
    [-1e6, 'f16', 65504],
    [1e8, 'q8_0', '8.3e6'],
    [-1e8, 'q8_0', '8.3e6'],
  ] as const)('of %d are told of with %s, and sound with f32', async (value, kvCache, limit) => {
    const model = await loadModel(write(`large ${value}`, 'bk', value), { threads: 1 });
    try {
      await expectRejection(
        'NOT_FINITE',
        Promise.resolve(model.generate([1, 2, 3], { session: model.createSession({ kvCache }) })),
        new RegExp(`the KV cache holds, which is ${kvCache}, to ${limit}: with kvCache f32`),
      );
      expect(
        (await model.generate([1, 2, 3], { session: model.createSession({ kvCache: 'f32' }), maxTokens: 3 })).tokens
          .length,
      ).toBeGreaterThan(0);
    } finally {
      await model.dispose();
    }
  });
});
