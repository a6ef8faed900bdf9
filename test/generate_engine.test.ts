import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { LoadProgress } from '../lib/engine/load_options.js';
import { loadModel, loadSyntheticModel } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import { expectSameBits, someIds } from './reference/engine.js';
import { logSoftmax } from './reference/forward.js';
import { longestTurn } from './support/event_loop.js';
import { expectCode, expectRejection } from './support/expect_code.js';
import { writeRandomModel } from './support/random_model.js';
import { shortlistOf } from './support/shortlist_of.js';
import { tempFolder } from './support/temp_folder.js';
import { TEXT_VOCAB, writeTextModel } from './support/text_model.js';

const CONTEXT = 1024;

describe('generation on the engine', () => {
  const file = path.join(tempFolder(), 'random.gguf');
  let model: Model;
  beforeAll(async () => {
    writeTextModel(file, CONTEXT);
    model = await loadModel(file);
  });
  afterAll(() => model.dispose());

  it('scores across slices as decoding one by one does', async () => {
    const ids = someIds(700, TEXT_VOCAB);
    const session = model.createSession();
    const scores = await session.score(ids);
    expect([scores.length, session.position]).toEqual([699, 700]);
    session.truncate(0);
    for (let i = 0; i + 1 < 600; i++) {
      const expected = logSoftmax(await session.decode(ids[i]!))[ids[i + 1]!]!;
      expect(Math.abs(scores[i]! - expected)).toBeLessThan(1e-4);
    }
    session.truncate(300);
    const rest = await session.score(ids.slice(300));
    expectSameBits([rest], [scores.slice(300)], 'scores from position 300');
    expect(await session.score([1])).toHaveLength(0);
    expect(session.position).toBe(701);
    session.close();
  });

  it('takes control tokens in a text as text, unless asked', async () => {
    const text = 'a</s><s>b';
    const promptTokens = async (parseSpecialTokens?: boolean): Promise<number> =>
      (await model.generate(text, { parseSpecialTokens, maxTokens: 1 })).usage.promptTokens;
    const [parsed, plain] = [true, false].map(
      (parseSpecialTokens) => model.tokenizer.encode(text, { parseSpecialTokens }).length,
    );
    expect(parsed).toBeLessThan(plain!);
    expect([await promptTokens(), await promptTokens(false), await promptTokens(true)]).toEqual([plain, plain, parsed]);
    expectCode(
      'INVALID_ARGUMENT',
      () => model.generate(text, { parseSpecialTokens: 1 as never }),
      /^parseSpecialTokens is 1; expected true or false/,
    );
  });

  it('lists the highest of the logits, after a token and after a prompt of several slices', async () => {
    const [listed, whole] = [model.createSession(), model.createSession()];
    for (const [ids, count] of [
      [someIds(600, TEXT_VOCAB), 40],
      [[7], 1],
      [[8], 64],
    ] as Array<[number[], number]>) {
      const found = await listed.shortlist(ids, count);
      const expected = shortlistOf(await whole.prefill(ids), count);
      expect(found).toEqual({ ...expected, logSumExp: expect.closeTo(expected.logSumExp, 5) });
    }
    expect(listed.position).toBe(602);
    for (const count of [0, 65, 1.5])
      await expectRejection('INVALID_ARGUMENT', listed.shortlist([1], count), /^The length of the shortlist/);
    await expectRejection('INVALID_ARGUMENT', listed.shortlist([TEXT_VOCAB], 5), /^Token 0 is 300/);
    expect(listed.position).toBe(602);
    listed.close();
    await expectRejection('DISPOSED', listed.shortlist([1], 5));
  });

  it('generates the same from shortlists as from all logits', async () => {
    const prompt = someIds(20, TEXT_VOCAB);
    for (const options of [
      { temperature: 0 },
      { temperature: 2, seed: 4 },
      { temperature: 2, topK: 64, topP: 0.8, seed: 5 },
      { temperature: 1, logprobs: 3, seed: 6 },
    ]) {
      const listed = await model.generate(prompt, { ...options, maxTokens: 60 });
      // So small a bias changes nothing, but needs all logits.
      const whole = await model.generate(prompt, { ...options, maxTokens: 60, logitBias: { 0: Number.MIN_VALUE } });
      expect(listed.tokens).toEqual(whole.tokens);
    }
  });

  it('does the calls of a session in order, and lets sessions take turns', async () => {
    const [long, short] = [model.createSession(), model.createSession()];
    const order: string[] = [];
    const calls = [
      long.prefill(someIds(900, TEXT_VOCAB)).then(() => order.push('long')),
      long.decode(1).then(() => order.push('long again')),
      short.decode(2).then(() => order.push('short')),
    ];
    await Promise.all(calls);
    expect(order).toEqual(['short', 'long', 'long again']);
    expect([long.position, short.position]).toEqual([901, 1]);
    const alone = model.createSession();
    expectSameBits([await short.decode(3)], [(await alone.decode(2), await alone.decode(3))], 'beside another session');
  });

  it('copies the ids it is given', async () => {
    const session = model.createSession();
    const ids = Int32Array.from(someIds(400, TEXT_VOCAB));
    const call = session.prefill(ids);
    const logits = model.createSession().prefill(Array.from(ids));
    ids.fill(0);
    expectSameBits([await call], [await logits], 'after the array was changed');
  });

  it('refuses what does not fit, and goes on', async () => {
    const session = model.createSession({ contextLength: 8 });
    await session.prefill([1, 2, 3]);
    await expectRejection(
      'CONTEXT_OVERFLOW',
      session.prefill([1, 2, 3, 4, 5, 6]),
      /^6 tokens at position 3 end at 9; expected at most the context's 8\.$/,
    );
    await expectRejection('CONTEXT_OVERFLOW', session.score({ length: 1e15 }), /expected at most the context's 8/);
    await expectRejection('INVALID_ARGUMENT', session.prefill([]), /^The tokens/);
    await expectRejection(
      'INVALID_ARGUMENT',
      session.prefill([TEXT_VOCAB]),
      /^Token 0 is 300; expected an integer from 0 to 299\.$/,
    );
    await expectRejection('INVALID_ARGUMENT', session.decode(1.5), /^Token 0 is 1.5/);
    await expectRejection('INVALID_ARGUMENT', session.prefill('abc' as never), /^The tokens/);
    await expectRejection(
      'INVALID_ARGUMENT',
      session.prefill([1], { singal: undefined } as never),
      /did you mean signal/,
    );
    expectCode('INVALID_ARGUMENT', () => session.truncate(4), /from 0 to the position, 3/);
    const pending = session.decode(1);
    expectCode('INVALID_ARGUMENT', () => session.truncate(0), /in flight/);
    await pending;
    expect(session.position).toBe(4);
    session.truncate(0);
    expect((await session.prefill([1, 2, 3, 4, 5, 6, 7, 8])).length).toBe(TEXT_VOCAB);
  });

  it('rewinds to where a text is new, and computes the rest as if it had come in one piece', async () => {
    const texts = [
      someIds(300, TEXT_VOCAB),
      [...someIds(280, TEXT_VOCAB), 5, 6, 7],
      someIds(120, TEXT_VOCAB),
      [9, ...someIds(120, TEXT_VOCAB)],
      [9],
      [9, 4],
    ];
    const session = model.createSession();
    for (const [from, ids] of [
      [0, texts[0]!],
      [280, texts[1]!],
      [119, texts[2]!],
      [0, texts[3]!],
      [0, texts[4]!],
      [1, texts[5]!],
      [1, texts[5]!],
    ] as const) {
      const rest = session.rewind(ids);
      expect([session.position, [...rest]]).toEqual([from, ids.slice(from)]);
      const whole = model.createSession();
      expectSameBits([await session.prefill(rest)], [await whole.prefill(ids)], `after position ${from}`);
      whole.close();
    }
    // A whole reply is kept, whoever put it in.
    const { tokens } = await model.generate(session.rewind([9, 4, 8]), { maxTokens: 10, seed: 1, session });
    expect([...session.rewind([9, 4, 8, ...tokens, 3])]).toEqual([3]);

    expectCode('INVALID_ARGUMENT', () => session.rewind([]), /^The tokens/);
    expectCode('CONTEXT_OVERFLOW', () => session.rewind(someIds(CONTEXT + 1, TEXT_VOCAB)));
    const pending = session.decode(1);
    expectCode('INVALID_ARGUMENT', () => session.rewind([1]), /rewind was called while .* in flight/);
    await pending;
    session.close();
    expectCode('DISPOSED', () => session.rewind([1]));
  });

  it('gives the same text for the same seed, whatever the threads and the execution', async () => {
    const options = { maxTokens: 60, seed: 11, temperature: 1.5, topK: 0, plan: 'P2-D1-S1-E5' };
    const expected = await model.generate('Hello', options);
    expect(expected.tokens.length).toBeGreaterThan(10);
    for (const placement of [
      { threads: 1 },
      { threads: 2, execution: 'wide' },
      { threads: 3, execution: 'lanes' },
    ] as const) {
      const other = await loadModel(file, placement);
      expect(await other.generate('Hello', options)).toMatchObject({ text: expected.text, tokens: expected.tokens });
      await other.dispose();
    }
    const chunks = [];
    for await (const chunk of model.generate('Hello', options)) chunks.push(chunk);
    expect(chunks.map(({ text }) => text).join('')).toBe(expected.text);
    expect(chunks.map(({ token }) => token)).toEqual(expected.tokens);
  });

  it('generates the same in a session as in two calls on it', async () => {
    const prompt = [1, 70, 80, 90];
    const options = { temperature: 0, logitBias: { 2: -Infinity } };
    const whole = await model.generate(prompt, { ...options, maxTokens: 12 });
    const session = model.createSession();
    const first = await model.generate(prompt, { ...options, maxTokens: 5, session });
    expect(session.position).toBe(prompt.length + 5);
    expect(first.tokens).toEqual(whole.tokens.slice(0, 5));
    session.truncate(session.position - 1);
    const second = await model.generate(first.tokens.slice(-1), { ...options, maxTokens: 7, session });
    expect(second.tokens).toEqual(whole.tokens.slice(5));
  });

  it('stops within one token of the signal, and on dispose', async () => {
    const controller = new AbortController();
    const generation = model.generate([1, 5], {
      maxTokens: 1000,
      logitBias: { 2: -Infinity },
      signal: controller.signal,
    });
    let after = 0;
    const loop = (async () => {
      for await (const _ of generation) {
        if (controller.signal.aborted) after++;
        else setImmediate(() => controller.abort());
      }
    })();
    await expectRejection('ABORTED', loop);
    expect(after).toBeLessThanOrEqual(1);

    const doomed = await loadModel(file);
    const started = Promise.allSettled([doomed.generate([1, 5], { maxTokens: 1000, logitBias: { 2: -Infinity } })]);
    setTimeout(() => void doomed.dispose(), 5);
    expect(await started).toMatchObject([{ status: 'rejected', reason: { code: 'DISPOSED' } }]);
    expectCode('DISPOSED', () => doomed.generate('x'));
    expectCode('DISPOSED', () => doomed.createSession());
  });

  it('reports how far loading is, and stops when told to', async () => {
    const seen: LoadProgress[] = [];
    const loaded = await loadModel(file, { onProgress: (progress) => seen.push(progress) });
    expect(seen[0]).toMatchObject({ phase: 'open', loaded: 0 });
    expect(seen.at(-1)).toEqual({ phase: 'read', loaded: seen[0]!.total, total: seen[0]!.total });
    expect(loaded.threads).toBe(1);
    await loaded.dispose();
    const controller = new AbortController();
    await expectRejection(
      'ABORTED',
      loadModel(file, { signal: controller.signal, onProgress: () => controller.abort() }),
    );
    await expect(
      loadModel(file, {
        onProgress: () => {
          throw new RangeError('mine');
        },
      }),
    ).rejects.toThrow(RangeError);
  });

  it.each<[object, string, RegExp]>([
    [{ backend: 'gpu' }, 'INVALID_ARGUMENT', /^backend is 'gpu'; expected auto, cpu or cuda\.$/],
    [{ execution: 'fast' }, 'INVALID_ARGUMENT', /^execution is 'fast'/],
    [{ execution: 'devices' }, 'INVALID_ARGUMENT', /^execution is 'devices'/],
    [{ devices: [0, 1] }, 'INVALID_ARGUMENT', /^devices is .* one index: this version computes on one device/],
    [{ devices: [-1] }, 'INVALID_ARGUMENT', /^devices/],
    [{ threads: 1000 }, 'INVALID_ARGUMENT', /^threads is 1000; expected an integer from 1 to 256\.$/],
    [{ contextLength: CONTEXT + 1 }, 'INVALID_ARGUMENT', /the model's 1024 positions/],
    [{ thread: 1 }, 'INVALID_ARGUMENT', /did you mean threads\?/],
    [{ plan: 'P2-S1-E9' }, 'INVALID_PLAN', /layer/],
  ])('refuses to load with %o', async (options, code, message) => {
    await expectRejection(code as never, loadModel(file, options), message);
  });

  it('refuses a session of another model, and options that do not fit', async () => {
    const other = await loadModel(file);
    expectCode(
      'INVALID_ARGUMENT',
      () => model.generate('x', { session: other.createSession() }),
      /a session of this model/,
    );
    expectCode('INVALID_ARGUMENT', () => model.createSession({ contextLength: 2000 }), /1 to the model's 1024/);
    expectCode(
      'INVALID_ARGUMENT',
      () => model.createSession({ context: 5 } as never),
      /^createSession has no option "context"/,
    );
    await other.dispose();
    await expectRejection('FILE_NOT_FOUND', loadModel(path.join(file, 'none')));
    await expectRejection('INVALID_ARGUMENT', loadModel(3 as never), /^The path of the model is 3/);
  });

  it('a model whose tokenizer cannot be read computes on token ids and says why there is no text', async () => {
    const folder = writeRandomModel(path.join(path.dirname(file), 'broken'), { format: 'huggingface' });
    writeFileSync(path.join(folder, 'tokenizer.json'), '{"model"');
    const broken = await loadModel(folder);
    expectCode('INVALID_TOKENIZER', () => broken.generate('Hello'), /tokenizer\.json is not valid JSON/);
    expect(await broken.generate([1, 2, 3], { maxTokens: 2 })).toMatchObject({
      text: '',
      usage: { completionTokens: 2 },
    });
    await broken.dispose();
  });

  it('random weights compute on token ids and say why there is no text', async () => {
    const synthetic = await loadSyntheticModel('smollm2-135m', { dtype: 'Q8_0', seed: 1, threads: 1 });
    expectCode('INVALID_TOKENIZER', () => synthetic.tokenizer, /no tokenizer/);
    expectCode('INVALID_TOKENIZER', () => synthetic.generate('Hello'), /no tokenizer/);
    expect(await synthetic.generate([1, 2, 3], { maxTokens: 2 })).toMatchObject({
      text: '',
      usage: { completionTokens: 2 },
    });
    await synthetic.dispose();
  });
});

describe('with the model that ships', () => {
  let model: Model;
  beforeAll(async () => {
    model = await loadModel();
  });
  afterAll(() => model.dispose());

  it('cuts at stop strings that tokens straddle', async () => {
    const options = { temperature: 0, maxTokens: 60 };
    const { text } = await model.generate('Once upon a time', options);
    for (const stop of [text.slice(20, 33), text.slice(41, 44)]) {
      const cut = await model.generate('Once upon a time', { ...options, stop });
      expect(cut).toMatchObject({ text: text.slice(0, text.indexOf(stop)), finishReason: 'stop' });
    }
  });

  it('leaves the event loop free: no turn of it computes for 20 ms', async () => {
    // What generating itself holds up is in every run; a collection of what earlier tests left is in one or two.
    let longest = Infinity;
    for (let run = 0; run < 5 && longest >= 20; run++) {
      longest = Math.min(
        longest,
        await longestTurn(() => model.generate('Once upon a time', { maxTokens: 200, seed: 1, topK: 0, logprobs: 5 })),
      );
    }
    expect(longest).toBeLessThan(20);
  });
});
