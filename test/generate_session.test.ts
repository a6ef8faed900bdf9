import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { GenerateOptions, GenerationResult } from '../lib/generate/generate.js';
import { loadModel } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import type { Session } from '../lib/session/session.js';
import { someIds } from './reference/engine.js';
import { expectCode, expectRejection } from './support/expect_code.js';
import { tempFolder } from './support/temp_folder.js';
import { TEXT_VOCAB, writeTextModel } from './support/text_model.js';

const CONTEXT = 256;
const PROMPT = someIds(20, TEXT_VOCAB);
/** Greedy, and never ended by the model. */
const LONG: GenerateOptions = { temperature: 0, maxTokens: 12, logitBias: { 2: -Infinity } };

describe('a generation in a session', () => {
  const file = path.join(tempFolder(), 'random.gguf');
  let model: Model;
  let alone: GenerationResult;
  beforeAll(async () => {
    writeTextModel(file, CONTEXT);
    model = await loadModel(file);
    alone = await model.generate(PROMPT, LONG);
  });
  afterAll(() => model.dispose());

  /** A generation in a new session that has given two chunks, and what is to be awaited for the rest. */
  async function begun(session: Session = model.createSession()) {
    const generation = model.generate(PROMPT, { ...LONG, session });
    const iterator = generation[Symbol.asyncIterator]();
    await iterator.next();
    await iterator.next();
    return { session, generation, iterator };
  }

  it('keeps the session to itself, however often another is refused', async () => {
    const { session, generation } = await begun();
    for (let i = 0; i < 3; i++)
      await expectRejection(
        'INVALID_ARGUMENT',
        model.generate([5], { ...LONG, session }),
        /in use by another generation/,
      );
    await expectRejection(
      'INVALID_ARGUMENT',
      model.generate(Array(CONTEXT - 3).fill(5), { session }),
      /in use by another generation/,
    );
    await expectRejection('ABORTED', model.generate([5], { session, signal: AbortSignal.abort() }));
    await expectRejection(
      'INVALID_ARGUMENT',
      model.generate([5], { ...LONG, session }),
      /in use by another generation/,
    );
    expect((await generation).tokens).toEqual(alone.tokens);
    expect(session.position).toBe(PROMPT.length + alone.tokens.length);
    expect((await model.generate([5], { ...LONG, session })).tokens).toHaveLength(12);
    const both = await Promise.allSettled([
      model.generate([5], { ...LONG, session }),
      model.generate([6], { ...LONG, session }),
    ]);
    expect(both.map((each) => each.status)).toEqual(['fulfilled', 'rejected']);
  });

  it('refuses every other change to the session until it is done', async () => {
    const { session, generation } = await begun();
    const changes: Array<(session: Session) => unknown> = [
      (s) => s.prefill([1]),
      (s) => s.decode(1),
      (s) => s.shortlist([1], 1),
      (s) => s.score([1, 2]),
      (s) => s.trace([1]),
      (s) => s.logits([1]),
      (s) => s.timeline(1),
      (s) => s.truncate(0),
      (s) => s.rewind([1]),
    ];
    const before = session.position;
    for (const change of changes)
      await expectRejection(
        'INVALID_ARGUMENT',
        (async () => change(session))(),
        /^\w+ was called while a generation is using this session/,
      );
    expect(session.position).toBe(before);
    expect((await generation).tokens).toEqual(alone.tokens);
    for (const change of changes) await change(session);
  });

  it('frees the session when it fails before it has begun, is left, or is aborted', async () => {
    const session = model.createSession({ contextLength: 64 });
    const goesOn = async (): Promise<void> => {
      session.truncate(0);
      expect((await model.generate(PROMPT, { ...LONG, session })).tokens).toEqual(alone.tokens);
    };
    await expectRejection('CONTEXT_OVERFLOW', model.generate(Array(64).fill(5), { session }));
    await expectRejection('INVALID_ARGUMENT', model.generate([], { session: await filled(session) }), /no tokens/);
    await goesOn();
    const left = await begun((session.truncate(0), session));
    await left.iterator.return!();
    expect(session.position).toBe(PROMPT.length + 1);
    await goesOn();
    const controller = new AbortController();
    session.truncate(0);
    const aborted = model.generate(PROMPT, { ...LONG, session, signal: controller.signal });
    await aborted[Symbol.asyncIterator]().next();
    controller.abort();
    await expectRejection('ABORTED', aborted);
    await goesOn();
  });

  async function filled(session: Session): Promise<Session> {
    await session.prefill([7]);
    return session;
  }

  it('waits for the calls that were made before it', async () => {
    const session = model.createSession();
    const earlier = session.prefill(PROMPT.slice(0, 15));
    const generation = model.generate(PROMPT.slice(15), { ...LONG, session }).then((result) => result);
    expectCode('INVALID_ARGUMENT', () => session.truncate(0), /a generation is using/);
    await earlier;
    expect((await generation).tokens).toEqual(alone.tokens);
  });

  it('waits for them no longer than its signal lets it', async () => {
    const session = model.createSession();
    const order: string[] = [];
    const earlier = session.prefill(someIds(200, TEXT_VOCAB)).then(() => order.push('the earlier call'));
    const controller = new AbortController();
    const generation = expectRejection('ABORTED', model.generate([5], { session, signal: controller.signal })).then(
      () => order.push('the generation'),
    );
    controller.abort();
    await Promise.all([earlier, generation]);
    expect([order, session.position]).toEqual([['the generation', 'the earlier call'], 200]);
    session.truncate(0);
  });

  it('rejects with DISPOSED when the session is closed under it, between two chunks or while it works', async () => {
    const between = await begun();
    between.session.close();
    await expectRejection('DISPOSED', between.generation, /session is closed/);
    const { session, generation } = await begun();
    const working = generation.then((result) => result);
    session.close();
    await expectRejection('DISPOSED', working, /session is closed/);
    await expectRejection('DISPOSED', model.generate([1], { session }));
  });

  it.each<[string, GenerateOptions]>([
    ['greedy, decoding ahead', {}],
    ['greedy with a penalty', { repetitionPenalty: 1.5 }],
    ['sampling from a shortlist', { temperature: 0.9, seed: 7 }],
    ['sampling with a penalty', { temperature: 0.9, seed: 7, repetitionPenalty: 1.3 }],
    ['a window longer than what is new', { repetitionPenalty: 1.5, repetitionWindow: 18 }],
    ['a window shorter than what is new', { repetitionPenalty: 1.5, repetitionWindow: 3 }],
    ['frequency and presence', { frequencyPenalty: 0.8, presencePenalty: 0.4, temperature: 0.9, seed: 8 }],
  ])('draws what the whole text given at once would: %s', async (_, options) => {
    // Half of the text comes again and again, so that a penalty that misses it shows.
    const text = [...PROMPT.slice(0, 6), ...alone.tokens, ...PROMPT.slice(0, 6), ...alone.tokens];
    const settings = { ...LONG, maxTokens: 24, ...options };
    const whole = await model.generate(text, settings);
    for (const cached of [1, 9, text.length - 1]) {
      const session = model.createSession();
      await session.prefill(text.slice(0, cached));
      expect((await model.generate(session.rewind(text), { ...settings, session })).tokens).toEqual(whole.tokens);
    }
  });

  it('refuses a text that cannot fit without encoding all of it', async () => {
    const session = model.createSession({ contextLength: 64 });
    await session.prefill(PROMPT);
    const text = 'a '.repeat(1 << 20);
    const encode = vi.spyOn(model.tokenizer, 'encodeSliced');
    await expectRejection(
      'CONTEXT_OVERFLOW',
      model.generate(text, { session }),
      /^A prompt of more than 43 tokens at position 20 leaves no room/,
    );
    await expectRejection(
      'CONTEXT_OVERFLOW',
      model.generate(text),
      /^A prompt of more than 255 tokens at position 0 .* the context's 256/,
    );
    for (const { value } of encode.mock.results) expect((await (value as Promise<number[]>)).length).toBeLessThan(300);
    encode.mockRestore();
  });

  it('refuses to go on in a full session, or with nothing, and says what helps', async () => {
    const session = model.createSession({ contextLength: PROMPT.length + 1 });
    await session.prefill(PROMPT);
    for (const prompt of ['more', [5], '']) {
      await expectRejection(
        'CONTEXT_OVERFLOW',
        model.generate(prompt, { session }),
        /^The session holds 20 tokens of 21, .* truncated or rewound/,
      );
    }
    const roomy = model.createSession({ contextLength: 64 });
    await roomy.prefill(PROMPT);
    await expectRejection(
      'INVALID_ARGUMENT',
      model.generate('', { session: roomy }),
      /a session that has tokens already needs one to go on with/,
    );
    const whole = await model.generate(PROMPT, { ...LONG, maxTokens: 8 });
    const begun = await model.generate(roomy.rewind(PROMPT), { ...LONG, maxTokens: 3, session: roomy });
    const rest = await model.generate(roomy.rewind([...PROMPT, ...begun.tokens]), {
      ...LONG,
      maxTokens: 5,
      session: roomy,
    });
    expect([...begun.tokens, ...rest.tokens]).toEqual(whole.tokens);
  });

  it('says when the context of the session is full', async () => {
    const session = model.createSession({ contextLength: PROMPT.length + 8 });
    expect(await model.generate(PROMPT, { ...LONG, maxTokens: 8, session })).toMatchObject({ finishReason: 'length' });
    session.truncate(PROMPT.length - 1);
    const full = await model.generate(PROMPT.slice(-1), { ...LONG, maxTokens: 9, session });
    expect([full.finishReason, full.tokens, session.position]).toEqual([
      'context',
      alone.tokens.slice(0, 8),
      session.contextLength,
    ]);
  });
});
