import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Batcher, type Call } from '../lib/session/batcher.js';
import type { ForwardRequest, NativeAddon, Outcome, SessionHandle } from '../lib/engine/native.js';
import { loadModel } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import { someIds } from './reference/engine.js';
import { tempFolder } from './support/temp_folder.js';
import { TEXT_VOCAB, writeTextModel } from './support/text_model.js';

describe('calls of several sessions', () => {
  const file = path.join(tempFolder(), 'random.gguf');
  let model: Model;
  beforeAll(async () => {
    writeTextModel(file, 1024);
    model = await loadModel(file, { threads: 2 });
  });
  afterAll(() => model.dispose());

  it('generations give together what each gives alone, with plans and without', async () => {
    const requests = Array.from({ length: 12 }, (_, i) => ({
      prompt: someIds(5 + 37 * (i % 7), TEXT_VOCAB),
      options: {
        maxTokens: 20 + i,
        temperature: i % 2 ? 0.8 : 0,
        seed: i,
        plan: i % 3 ? undefined : 'P2-S1-E5',
        logitBias: i % 4 ? undefined : { 7: 0.5 },
      },
    }));
    const alone = [];
    for (const { prompt, options } of requests) alone.push((await model.generate(prompt, options)).tokens);
    const together = await Promise.all(requests.map(({ prompt, options }) => model.generate(prompt, options)));
    expect(together.map(({ tokens }) => tokens)).toEqual(alone);
  });

  it('every kind of output at once is what it is alone', async () => {
    const ids = someIds(30, TEXT_VOCAB);
    const calls = [
      (session: ReturnType<Model['createSession']>) => session.prefill(ids),
      (session: ReturnType<Model['createSession']>) => session.logits(ids),
      (session: ReturnType<Model['createSession']>) => session.score(someIds(700, TEXT_VOCAB)),
      (session: ReturnType<Model['createSession']>) => session.trace(ids),
      (session: ReturnType<Model['createSession']>) => session.shortlist(ids, 5),
      (session: ReturnType<Model['createSession']>) => session.shortlists(ids, 5),
      (session: ReturnType<Model['createSession']>) => session.prefill(someIds(600, TEXT_VOCAB)),
    ];
    const open = (): Array<ReturnType<Model['createSession']>> => calls.map(() => model.createSession());
    const [apart, together] = [open(), open()];
    const expected: unknown[] = [];
    for (const [i, call] of calls.entries()) expected.push(await call(apart[i]!));
    expect(await Promise.all(calls.map((call, i) => call(together[i]!)))).toEqual(expected);
    expect(together.map(({ position }) => position)).toEqual(apart.map(({ position }) => position));
    for (const session of [...apart, ...together]) session.close();
  });

  it('shortlists are those after each of the tokens', async () => {
    const ids = someIds(20, TEXT_VOCAB);
    const [one, all] = [model.createSession(), model.createSession()];
    const expected = [];
    for (const id of ids) expected.push(await one.shortlist([id], 4));
    expect(await all.shortlists(ids, 4)).toEqual(expected);
    await expect(all.shortlists(someIds(33, TEXT_VOCAB), 4)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    one.close();
    all.close();
  });

  it('what ends one does not harm the others', async () => {
    const prompt = someIds(400, TEXT_VOCAB);
    const expected = (await model.generate(prompt, { maxTokens: 12, temperature: 0 })).tokens;
    const sessions = Array.from({ length: 4 }, () => model.createSession());
    const abort = new AbortController();
    const outcomes = Promise.allSettled([
      ...Array.from({ length: 4 }, () => model.generate(prompt, { maxTokens: 12, temperature: 0 })),
      sessions[0]!.prefill(prompt, { signal: abort.signal }),
      sessions[1]!.prefill(prompt),
      sessions[2]!.prefill(prompt),
    ]);
    setImmediate(() => {
      abort.abort();
      sessions[1]!.close();
    });
    const [a, b, c, d, aborted, closed, sound] = await outcomes;
    for (const outcome of [a, b, c, d])
      expect(outcome).toMatchObject({ status: 'fulfilled', value: { tokens: expected } });
    expect(aborted).toMatchObject({ status: 'rejected', reason: { code: 'ABORTED' } });
    expect(closed).toMatchObject({ status: 'rejected', reason: { code: 'DISPOSED' } });
    expect(sound).toMatchObject({ status: 'fulfilled' });
    // The session of the aborted call goes on from where it is.
    const rest = await sessions[0]!.prefill(prompt.slice(sessions[0]!.position));
    expect(rest).toEqual(sound?.status === 'fulfilled' && sound.value);
    for (const session of sessions) session.close();
  });
});

describe('the batcher', () => {
  const handle = (name: string): SessionHandle => name as unknown as SessionHandle;

  /** Notes the forwards that are asked for: each as the ids of every session in it. */
  function noting(): {
    forwards: Array<Record<string, number>>;
    native: Pick<NativeAddon, 'forward' | 'forwardTogether'>;
  } {
    const forwards: Array<Record<string, number>> = [];
    const note = (calls: Array<{ session: SessionHandle; request: ForwardRequest }>): void => {
      forwards.push(Object.fromEntries(calls.map(({ session, request }) => [session, request.ids.length])));
    };
    return {
      forwards,
      native: {
        forward: async (session, request) => {
          note([{ session, request }]);
          return null;
        },
        forwardTogether: async (calls) => {
          note(calls);
          return calls.map((): Outcome => ({ value: null }));
        },
      },
    };
  }
  const call = (name: string, tokens: number, more: Partial<Call> = {}): Call => ({
    session: handle(name),
    program: 'p',
    tokens,
    whole: false,
    begin: (room) => ({ ids: new Int32Array(Math.min(room, tokens)), position: 0, output: 'none' }),
    ...more,
  });

  it('shares a forward equally, and gives on what some leave', async () => {
    const { forwards, native } = noting();
    const batcher = new Batcher(native, 256);
    await Promise.all([call('a', 500), call('b', 10), call('c', 1000), call('d', 1)].map((one) => batcher.run(one)));
    expect(forwards).toEqual([{ a: 122, b: 10, c: 123, d: 1 }]);
  });

  it('never cuts a call that is to be whole, and takes other programs in their own turn', async () => {
    const { forwards, native } = noting();
    const batcher = new Batcher(native, 256);
    await Promise.all(
      [
        call('a', 500),
        call('b', 200, { whole: true }),
        call('c', 60, { whole: true }),
        call('d', 5, { program: 'q' }),
        call('e', 50, { whole: true }),
      ].map((one) => batcher.run(one)),
    );
    expect(forwards).toEqual([{ a: 6, b: 200, e: 50 }, { c: 60 }, { d: 5 }]);
  });

  it('rejects what cannot begin, and computes the rest; one at a time where the backend wants that', async () => {
    const { forwards, native } = noting();
    const batcher = new Batcher(native, 1);
    const failing = call('a', 3, {
      begin: () => {
        throw new Error('given up');
      },
    });
    const outcomes = await Promise.allSettled([
      batcher.run(failing),
      batcher.run(call('b', 2)),
      batcher.run(call('c', 2)),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'fulfilled']);
    expect(forwards).toEqual([{ b: 2 }, { c: 2 }]);
    await batcher.idle();
  });

  it('does other work in its turn, and goes on when that throws before it waits', async () => {
    const { forwards, native } = noting();
    const batcher = new Batcher(native, 256);
    const outcomes = await Promise.allSettled([
      batcher.run(() => {
        throw new Error('at once');
      }),
      batcher.run(call('a', 2)),
      batcher.run(async () => forwards.length),
      batcher.run(call('b', 2, { program: 'q' })),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'fulfilled', 'fulfilled']);
    expect(outcomes[2]).toMatchObject({ value: 1 });
    expect(forwards).toEqual([{ a: 2 }, { b: 2 }]);
  });
});
