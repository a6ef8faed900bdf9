import { getEventListeners } from 'node:events';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Generation, type GenerateOptions, type GenerationChunk } from '../lib/generate/generate.js';
import type { Session } from '../lib/session/session.js';
import { expectCode, expectRejection } from './support/expect_code.js';
import { EMOJI, ScriptedModel, word } from './support/scripted_model.js';

const STORY = [word('Once'), word(' upon'), word(' a'), word(' time'), 1];

function start(model: ScriptedModel, options: GenerateOptions = {}, prompt: string | number[] = 'Once'): Generation {
  return new Generation(model, prompt, { temperature: 0, ...options });
}

async function collect(generation: AsyncIterable<GenerationChunk>): Promise<GenerationChunk[]> {
  const chunks = [];
  for await (const chunk of generation) chunks.push(chunk);
  return chunks;
}

describe('generation', () => {
  const unhandled: unknown[] = [];
  const remember = (reason: unknown): void => void unhandled.push(reason);
  beforeEach(() => void process.on('unhandledRejection', remember));
  afterEach(async () => {
    await setImmediate();
    await setImmediate();
    process.off('unhandledRejection', remember);
    expect(unhandled).toEqual([]);
  });

  it('awaited gives the whole', async () => {
    const model = new ScriptedModel(STORY);
    const result = await start(model);
    expect(result).toEqual({
      text: 'Once upon a time',
      tokens: STORY,
      finishReason: 'eos',
      usage: { promptTokens: 2, completionTokens: 5, totalTokens: 7 },
      timings: {
        prefillMs: expect.any(Number),
        decodeMs: expect.any(Number),
        prefillTokensPerSecond: expect.any(Number),
        decodeTokensPerSecond: expect.any(Number),
        timeToFirstTokenMs: expect.any(Number),
      },
      seed: expect.any(Number),
    });
    expect(result.timings.timeToFirstTokenMs).toBeGreaterThanOrEqual(result.timings.prefillMs);
    expect([model.opened, model.closed]).toEqual([1, 1]);
  });

  it('iterated gives chunks, then awaited the result, without a second run', async () => {
    const model = new ScriptedModel(STORY);
    const generation = start(model);
    const chunks = await collect(generation);
    expect(chunks).toEqual(STORY.map((token, i) => ({ token, text: ['Once', ' upon', ' a', ' time', ''][i] })));
    const forwards = model.forwards;
    expect((await generation).text).toBe('Once upon a time');
    expect(await generation).toBe(await generation);
    expect(await collect(generation)).toEqual(chunks);
    expect(model.forwards).toBe(forwards);
  });

  it('can be iterated and awaited at once, and awaited inside its own loop', async () => {
    const generation = start(new ScriptedModel(STORY));
    const [result, chunks, again] = await Promise.all([generation, collect(generation), collect(generation)]);
    expect(chunks.map((chunk) => chunk.text).join('')).toBe(result.text);
    expect(again).toEqual(chunks);
    const other = start(new ScriptedModel(STORY));
    const texts = [];
    for await (const { text } of other) texts.push(text, (await other).finishReason);
    expect(texts).toHaveLength(2 * STORY.length);
  });

  it('does nothing until it is used', async () => {
    const model = new ScriptedModel(STORY);
    const { signal } = new AbortController();
    start(model, { signal });
    await setImmediate();
    expect([model.opened, model.forwards]).toEqual([0, 0]);
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });

  it('works only when the loop asks', async () => {
    const model = new ScriptedModel(STORY);
    const iterator = start(model)[Symbol.asyncIterator]();
    await iterator.next();
    for (let i = 0; i < 5; i++) await setImmediate();
    expect(model.forwards).toBe(1);
    await iterator.next();
    expect(model.forwards).toBe(2);
    await iterator.return!();
  });

  it('has the next token begun ahead where it takes the likeliest or a wrong guess costs nothing, and another will be needed', async () => {
    const aheadOf = async (options: GenerateOptions, settings: Partial<ScriptedModel> = {}): Promise<unknown[]> => {
      const model = Object.assign(new ScriptedModel([word(' a')]), settings);
      await start(model, options);
      return model.ahead;
    };
    expect(await aheadOf({ maxTokens: 3 })).toEqual([true, true, false]);
    expect(await aheadOf({ maxTokens: 2, logprobs: 3 })).toEqual([true, false]);
    expect(await aheadOf({ maxTokens: 1 })).toEqual([false]);
    expect(await aheadOf({ maxTokens: 2, temperature: 0.5 })).toEqual([false, false]);
    expect(await aheadOf({ maxTokens: 2, logitBias: { 1: -1 } })).toEqual([false, false]);
    // A stage is short or long by the token before, so the first after the prompt says nothing yet.
    const short = { stopsAtStage: true, stages: 1000 };
    expect(await aheadOf({ maxTokens: 5, temperature: 0.5 }, short)).toEqual([false, false, true, true, false]);
    expect(await aheadOf({ maxTokens: 5, temperature: 0.5 }, { ...short, stopsAtStage: false })).toEqual(
      Array(5).fill(false),
    );
    const slow = { stopsAtStage: true, stages: 1, onForward: () => sleep(2) };
    expect(await aheadOf({ maxTokens: 4, temperature: 0.5 }, slow)).toEqual(Array(4).fill(false));
    expect(await aheadOf({ maxTokens: 2, repetitionPenalty: 1.1 })).toEqual([]);
    const model = new ScriptedModel(STORY);
    const session = model.createSession({ contextLength: 64 });
    await start(model, { session: session as unknown as Session });
    expect([model.ahead.at(-1), session.seen.at(-1)]).toEqual([false, 1]);
  });

  it('left early, it stops, frees its session, and awaiting it says so', async () => {
    const model = new ScriptedModel([word(' a')]);
    const generation = start(model, { maxTokens: 50 });
    for await (const { token } of generation) if (token === word(' a')) break;
    expect([model.forwards, model.closed]).toEqual([1, 1]);
    await expectRejection('ABORTED', generation, /left before its end/);
    await expectRejection('ABORTED', collect(generation));
  });

  it('a signal stops it within one token, while it works and while it waits', async () => {
    for (const when of ['working', 'waiting']) {
      const model = new ScriptedModel([word(' a')]);
      const controller = new AbortController();
      const reason = new Error('enough');
      if (when === 'working') model.onForward = (count) => void (count === 4 && controller.abort(reason));
      const generation = start(model, { maxTokens: 50, signal: controller.signal });
      let seen = 0;
      const loop = (async () => {
        for await (const _ of generation) if (++seen === 3 && when === 'waiting') controller.abort(reason);
      })();
      await expectRejection('ABORTED', loop);
      await expect(generation).rejects.toMatchObject({ code: 'ABORTED', cause: reason });
      expect(seen).toBe(3);
      expect(model.forwards).toBe(when === 'working' ? 4 : 3);
      expect(model.closed).toBe(1);
      expect(getEventListeners(controller.signal, 'abort')).toEqual([]);
    }
    await expectRejection('ABORTED', start(new ScriptedModel(STORY), { signal: AbortSignal.abort() }));
    await expect(start(new ScriptedModel(STORY), { signal: AbortSignal.abort() })).rejects.toMatchObject({
      name: 'AbortError',
    });
  });

  it('many that share a signal leave it one listener, and none when they are done', async () => {
    const warnings: unknown[] = [];
    const warned = (warning: unknown): void => void warnings.push(warning);
    process.on('warning', warned);
    const { signal } = new AbortController();
    const all = Array.from({ length: 30 }, () => start(new ScriptedModel(STORY), { signal }));
    const listeners: number[] = [];
    for await (const _ of all[0]!) {
      for (const one of all) void one.then(() => undefined);
      listeners.push(getEventListeners(signal, 'abort').length);
    }
    await Promise.all(all);
    expect([Math.max(...listeners), getEventListeners(signal, 'abort').length]).toEqual([1, 0]);
    await setImmediate();
    process.off('warning', warned);
    expect(warnings).toEqual([]);
  });

  it('dropped half-way, it is collected and leaves its signal', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const { signal } = new AbortController();
    for (let i = 0; i < 12; i++) await start(new ScriptedModel(STORY), { signal })[Symbol.asyncIterator]().next();
    for (let round = 0; round < 50 && getEventListeners(signal, 'abort').length > 0; round++) {
      collect();
      await sleep(10);
    }
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });

  it('frees its session on abort even when nobody asks for more', async () => {
    const model = new ScriptedModel([word(' a')]);
    const controller = new AbortController();
    const iterator = start(model, { signal: controller.signal })[Symbol.asyncIterator]();
    await iterator.next();
    controller.abort();
    await setImmediate();
    expect(model.closed).toBe(1);
    await expectRejection('ABORTED', iterator.next());
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
  });

  it('an error comes out of whichever way it is used, once, and frees the session', async () => {
    const model = new ScriptedModel(STORY);
    model.onForward = (count) => {
      if (count === 3) throw new Error('boom');
    };
    const generation = start(model);
    const iterator = generation[Symbol.asyncIterator]();
    await iterator.next();
    await iterator.next();
    await expect(iterator.next()).rejects.toThrow('boom');
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
    await expect(generation).rejects.toThrow('boom');
    expect(await generation.catch(() => 'caught')).toBe('caught');
    expect([model.opened, model.closed, model.forwards]).toEqual([1, 1, 3]);
  });

  it('ends by length, and says so', async () => {
    const model = new ScriptedModel([word(' a')]);
    expect(await start(model, { maxTokens: 3 })).toMatchObject({ finishReason: 'length', text: ' a a a' });
  });

  it('tells a full context from maxTokens', async () => {
    const model = new ScriptedModel([word(' a')]);
    for (const maxTokens of [undefined, 1000, 63]) {
      const result = await start(model, { maxTokens });
      expect([result.finishReason, result.tokens.length]).toEqual(['context', model.contextLength - 2]);
    }
    expect(await start(model, { maxTokens: 62 })).toMatchObject({
      finishReason: 'length',
      usage: { totalTokens: model.contextLength },
    });
  });

  it('never shows a piece of a stop string', async () => {
    const script = [word('Once'), word(' U'), word('\n\n'), word('User:'), word(' a')];
    const chunks = await collect(start(new ScriptedModel(script), { stop: ['\n\nUser:', ' Un'] }));
    expect(chunks.map((chunk) => chunk.text)).toEqual(['Once', '', ' U', '']);
    expect(await start(new ScriptedModel(script), { stop: '\n\nUser:' })).toMatchObject({
      text: 'Once U',
      finishReason: 'stop',
      tokens: script.slice(0, 4),
    });
    expect(await start(new ScriptedModel(script), { stop: '\n\nUser:', maxTokens: 3 })).toMatchObject({
      text: 'Once U\n\n',
      finishReason: 'length',
    });
  });

  it('ends at control tokens that stop strings name, though they have no text', async () => {
    const script = [word('Once'), word(' a'), 0, word(' time'), 1];
    expect(await start(new ScriptedModel(script))).toMatchObject({ text: 'Once a time', finishReason: 'eos' });
    expect(await start(new ScriptedModel(script), { stop: '<s>' })).toMatchObject({
      text: 'Once a',
      finishReason: 'stop',
      tokens: script.slice(0, 3),
    });
    expect(await start(new ScriptedModel(script), { stop: ['zz', ' a<s> time'] })).toMatchObject({
      text: 'Once',
      finishReason: 'stop',
      tokens: script.slice(0, 4),
    });
    expect(await start(new ScriptedModel(script), { stop: ['s', '>', ' time<s>'] })).toMatchObject({
      text: 'Once a time',
      finishReason: 'eos',
    });
    expect(await start(new ScriptedModel(script), { stop: ' time</s>' })).toMatchObject({
      text: 'Once a',
      finishReason: 'stop',
    });
  });

  it('shows characters whole, however many tokens they take', async () => {
    const chunks = await collect(start(new ScriptedModel([...EMOJI, 2, 1])));
    expect(chunks.map((chunk) => chunk.text)).toEqual(['', '', '', '😀', '', '\uFFFD']);
    const cut = await start(new ScriptedModel(EMOJI), { maxTokens: 2 });
    expect(cut.text).toBe('\uFFFD');
  });

  it('keeps the first space when it continues a text, not when it begins one', async () => {
    const script = [word(' a'), 1];
    expect((await start(new ScriptedModel(script))).text).toBe(' a');
    expect((await start(new ScriptedModel(script), {}, [0])).text).toBe('a');
    expect((await start(new ScriptedModel(script), {}, [0, 7])).text).toBe(' a');
    expect(await start(new ScriptedModel(script), {}, [])).toMatchObject({ text: 'a', usage: { promptTokens: 1 } });
    expect((await start(new ScriptedModel(script), {}, '')).text).toBe('a');
  });

  it('continues a session, whose cache then holds all of it', async () => {
    const model = new ScriptedModel(STORY);
    const session = model.createSession({ contextLength: 64 });
    const options = { session: session as unknown as Session, maxTokens: 3 };
    const first = await start(model, options);
    expect(session.seen).toEqual([0, 6, ...first.tokens]);
    const second = await start(model, options, ' was');
    expect(session.seen).toEqual([0, 6, ...first.tokens, word(' was'), ...second.tokens]);
    await expectRejection('INVALID_ARGUMENT', start(model, options, []), /no tokens/);
    await expectRejection(
      'CONTEXT_OVERFLOW',
      start(
        model,
        options,
        Array.from({ length: 60 }, () => 6),
      ),
      /60 tokens at position \d+ .* the context's 64/,
    );
    expect(model.closed).toBe(0);
  });

  it('reports log-probabilities with each chunk', async () => {
    const [first] = await collect(start(new ScriptedModel(STORY), { logprobs: 2 }));
    expect(first).toMatchObject({
      token: 6,
      logprob: expect.closeTo(0, 5),
      alternatives: [{ token: 6 }, { token: 0 }],
    });
  });

  it('a random seed is reported and gives the same text again', async () => {
    const model = new ScriptedModel(STORY);
    const random = { temperature: 30, topK: 0, topP: 1, maxTokens: 20 };
    const first = await start(model, random);
    expect((await start(model, { ...random, seed: first.seed })).tokens).toEqual(first.tokens);
    // One other seed may by chance draw the same few tokens; not all of a score.
    const others = await Promise.all(
      Array.from({ length: 20 }, (_, i) => start(model, { ...random, seed: first.seed + 1 + i })),
    );
    expect(others.some((other) => String(other.tokens) !== String(first.tokens))).toBe(true);
  });

  it.each<[GenerateOptions, RegExp]>([
    [{ maxToken: 3 } as never, /^generate has no option "maxToken"; did you mean maxTokens\?$/],
    [{ colour: 3 } as never, /^generate has no option "colour"; expected maxTokens, stop/],
    [{ maxTokens: 0 }, /^maxTokens is 0; expected an integer, 1 or more\.$/],
    [{ stop: '' }, /^stop is ''/],
    [{ stop: ['a', ''] }, /^stop is/],
    [{ stop: '\ud83d' }, /^stop is/],
    [{ stop: 3 as never }, /^stop is 3/],
    [{ signal: {} as never }, /^signal is/],
    [{ temperature: NaN }, /^temperature is NaN/],
    [{ plan: 'sequential', session: {} as never }, /^Both plan and session/],
  ])('refuses %o at once', (options, message) => {
    expectCode('INVALID_ARGUMENT', () => start(new ScriptedModel(STORY), options), message);
  });

  it.each<[unknown, RegExp]>([
    [undefined, /^The prompt is undefined; expected a string or an array of token ids/],
    [7, /^The prompt is 7/],
    [
      [{ role: 'user', content: 'Hello' }],
      /^The prompt is an array of messages; .* model\.tokenizer\.encodeChatSliced\(messages\)/,
    ],
    [{ role: 'user', content: 'Hello' }, /encodeChat.*applyChatTemplate/],
    [[1.5], /^Token 0 is 1.5; expected an integer from 0 to 14/],
    [[3, 15], /^Token 1 is 15/],
    [{ length: -1 }, /^The tokens/],
  ])('refuses the prompt %o at once', (prompt, message) => {
    expectCode('INVALID_ARGUMENT', () => new Generation(new ScriptedModel(STORY), prompt as never), message);
  });

  it('refuses options that are no object', () => {
    expectCode(
      'INVALID_ARGUMENT',
      () => new Generation(new ScriptedModel(STORY), 'Once', [] as never),
      /^The options of generate is \[\]; expected an object/,
    );
  });

  it('refuses a prompt that leaves no room', async () => {
    const model = new ScriptedModel(STORY);
    await expectRejection(
      'CONTEXT_OVERFLOW',
      start(
        model,
        {},
        Array.from({ length: 64 }, () => 6),
      ),
      /leaves no room/,
    );
    expectCode(
      'CONTEXT_OVERFLOW',
      () => start(model, {}, { length: 2 ** 50 } as never),
      /expected at most the context's 64/,
    );
    expect(model.opened).toBe(0);
  });
});
