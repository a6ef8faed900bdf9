import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadModel } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import { Sampler } from '../lib/generate/sampler.js';
import type { Session } from '../lib/session/session.js';
import { someIds } from './reference/engine.js';
import { expectRejection } from './support/expect_code.js';
import { tempFolder } from './support/temp_folder.js';
import { TEXT_VOCAB, writeTextModel } from './support/text_model.js';

const COUNT = 4;

describe('decoding ahead', () => {
  const file = path.join(tempFolder(), 'random.gguf');
  const prompt = someIds(20, TEXT_VOCAB);
  let model: Model;
  beforeAll(async () => {
    writeTextModel(file, 512);
    model = await loadModel(file, { threads: 2 });
  });
  afterAll(() => model.dispose());

  /** The shortlists after the prompt and after each of the tokens. */
  async function lists(tokens: number[]): Promise<unknown[]> {
    const session = model.createSession();
    const found: unknown[] = [await session.shortlist(prompt, COUNT)];
    for (const token of tokens) found.push(await session.shortlist([token], COUNT));
    session.close();
    return found;
  }

  /** Appends the prompt and then, `steps` times, the token that is chosen from the last list. */
  async function run(
    session: Session,
    steps: number,
    choose: (list: { ids: Int32Array }, step: number) => number | Promise<number>,
  ): Promise<{ tokens: number[]; found: unknown[] }> {
    const tokens: number[] = [];
    let list = await session.shortlist(prompt, COUNT, { ahead: true });
    const found: unknown[] = [list];
    for (let step = 0; step < steps; step++) {
      tokens.push(await choose(list, step));
      list = await session.shortlist(tokens.slice(-1), COUNT, { ahead: true });
      found.push(list);
    }
    return { tokens, found };
  }

  it('changes nothing, whichever token is taken, at once or late', async () => {
    const ways: Array<(list: { ids: Int32Array }, step: number) => number | Promise<number>> = [
      ({ ids }) => ids[0]!,
      ({ ids }) => ids[1]!,
      ({ ids }, step) => ids[step % 3 === 0 ? 1 : 0]!,
      ({ ids }, step) => sleep(step % 4, ids[0]!),
      ({ ids }, step) => sleep(step % 4, ids[step % 2]!),
    ];
    for (const way of ways) {
      const session = model.createSession();
      const { tokens, found } = await run(session, 40, way);
      expect(found).toEqual(await lists(tokens));
      expect(session.position).toBe(60);
      session.close();
    }
  });

  it('a generation that samples draws the same tokens from guesses, right and wrong, as from the logits of one token after the other', async () => {
    const session = model.createSession();
    for (const seed of [1, 2, 3]) {
      const options = { temperature: 0.3, seed };
      const { tokens } = await model.generate(prompt, { ...options, maxTokens: 60 });
      const sampler = new Sampler(options, TEXT_VOCAB);
      session.truncate(0);
      let logits = await session.prefill(prompt);
      for (const token of tokens) {
        expect(sampler.sample(logits).token).toBe(token);
        logits = await session.decode(token);
      }
    }
  });

  it('changes nothing for other calls of the session, or other sessions', async () => {
    const [session, other, expected] = [model.createSession(), model.createSession(), model.createSession()];
    const { tokens } = await run(session, 10, ({ ids }) => ids[0]!);
    const next = (await expected.shortlist([...prompt, ...tokens], 1)).ids[0]!;
    expect(await session.decode(next)).toEqual(await expected.decode(next));

    session.truncate(25);
    expected.truncate(25);
    expect(await session.logits([5, 6])).toEqual(await expected.logits([5, 6]));
    await session.shortlist([7], COUNT, { ahead: true });
    expect((await session.timeline(8)).spans.length).toBeGreaterThan(0);
    await expected.prefill([7, 8]);
    expect(await session.decode(9)).toEqual(await expected.decode(9));

    const both = await Promise.all([
      run(session.position ? (session.truncate(0), session) : session, 25, ({ ids }) => ids[0]!),
      run(other, 25, ({ ids }) => ids[0]!),
    ]);
    expect(both[0]).toEqual(both[1]);
    expect(both[0].found).toEqual(await lists(both[0].tokens));
  });

  it('a kept token is forgotten when the text before it has changed', async () => {
    const session = model.createSession();
    const first = await session.shortlist(prompt, COUNT, { ahead: true });
    await sleep(20);
    session.truncate(0);
    const changed = [...prompt];
    changed[3] = (changed[3]! + 1) % TEXT_VOCAB;
    await session.prefill(changed);
    const fresh = model.createSession();
    await fresh.prefill(changed);
    expect(await session.shortlist([first.ids[0]!], COUNT)).toEqual(await fresh.shortlist([first.ids[0]!], COUNT));
  });

  it('ends with the context, a signal, or the session', async () => {
    const short = model.createSession({ contextLength: prompt.length + 2 });
    const { tokens } = await run(short, 2, ({ ids }) => ids[0]!);
    await expectRejection('CONTEXT_OVERFLOW', short.shortlist([tokens[0]!], COUNT, { ahead: true }));

    const session = model.createSession();
    const list = await session.shortlist(prompt, COUNT, { ahead: true });
    await expectRejection(
      'ABORTED',
      session.shortlist([list.ids[0]!], COUNT, { ahead: true, signal: AbortSignal.abort() }),
    );
    expect(session.position).toBe(prompt.length);
    const controller = new AbortController();
    const call = session
      .shortlist([list.ids[0]!], COUNT, { ahead: true, signal: controller.signal })
      .catch((error: unknown) => error);
    controller.abort();
    const outcome = await call;
    if (session.position === prompt.length) expect(outcome).toMatchObject({ code: 'ABORTED' });
    session.truncate(prompt.length);
    expect(await session.shortlist([list.ids[0]!], COUNT)).toEqual((await lists([list.ids[0]!]))[1]);

    const closed = model.createSession();
    const last = await closed.shortlist(prompt, COUNT, { ahead: true });
    const pending = closed.shortlist([last.ids[0]!], COUNT, { ahead: true }).catch((error: unknown) => error);
    closed.close();
    expect(await pending).toMatchObject({ code: 'DISPOSED' });

    const doomed = await loadModel(file);
    await doomed.createSession().shortlist(prompt, COUNT, { ahead: true });
    await doomed.dispose();
    await expectRejection(
      'INVALID_ARGUMENT',
      session.shortlist([1], 1, { ahead: 1 as never }),
      /^ahead is 1; expected true or false\.$/,
    );
    await expectRejection('INVALID_ARGUMENT', session.prefill([1], { ahead: true } as never), /has no option "ahead"/);
  });

  it('a greedy generation gives the tokens of single steps, and leaves a session to go on in', async () => {
    const session = model.createSession();
    const { tokens } = await model.generate(prompt, { temperature: 0, maxTokens: 50, session });
    const { tokens: expected } = await run(model.createSession(), 50, ({ ids }) => ids[0]!);
    expect(tokens).toEqual(expected.slice(0, tokens.length));
    expect(session.position).toBe(prompt.length + tokens.length);
    const fresh = model.createSession();
    await fresh.prefill([...prompt, ...tokens]);
    expect(await session.decode(9)).toEqual(await fresh.decode(9));
  });
});
