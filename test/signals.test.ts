import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { CqilError } from '../lib/errors.js';
import { loadModel } from '../lib/model/load.js';
import { orAborted } from '../lib/util/abort.js';
import { expectRejection } from './support/expect_code.js';
import { tempFolder } from './support/temp_folder.js';
import { writeTextModel } from './support/text_model.js';

const folder = tempFolder();
const fails = (): never => {
  throw new Error('not this signal');
};
const none = (): void => undefined;

/** What has some of the shape of a signal, made anew: some count how often they are read. */
const SIGNALS: Record<string, () => unknown> = {
  'has no removeEventListener': () => ({ aborted: false, addEventListener: none }),
  'has no addEventListener': () => ({ aborted: false, removeEventListener: none }),
  'has no listeners of its own': () => ({ aborted: false, addEventListener: 1, removeEventListener: 1 }),
  'refuses listeners': () => ({ aborted: false, addEventListener: fails, removeEventListener: none }),
  'keeps listeners': () => ({ aborted: false, addEventListener: none, removeEventListener: fails }),
  'calls at once': () => ({
    aborted: false,
    addEventListener: (_: string, listener: () => void) => listener(),
    removeEventListener: none,
  }),
  'cannot say whether it has fired': () => ({
    get aborted() {
      return fails();
    },
    addEventListener: none,
    removeEventListener: none,
  }),
  'has fired and cannot say why': () => ({
    aborted: true,
    get reason() {
      return fails();
    },
    addEventListener: none,
    removeEventListener: none,
  }),
  'is a proxy of one': () => new Proxy(new AbortController().signal, {}),
  ...Object.fromEntries(
    [1, 2, 3, 4].map((reads) => [
      `cannot be read after ${reads} times`,
      () => {
        let left = reads;
        return {
          get aborted() {
            return left-- > 0 ? false : fails();
          },
          addEventListener: none,
          removeEventListener: none,
        };
      },
    ]),
  ),
};

/** Expects that a call works or is refused for its signal. */
async function expectCoded(call: () => PromiseLike<unknown>): Promise<void> {
  try {
    await call();
  } catch (error) {
    expect(error).toBeInstanceOf(CqilError);
    expect(['INVALID_ARGUMENT', 'ABORTED']).toContain((error as CqilError).code);
  }
}

describe.each(Object.entries(SIGNALS))('a signal that %s', (_what, make) => {
  const signal = (): AbortSignal => make() as AbortSignal;

  it('is done without or refused, and leaves sessions and the model as they were', async () => {
    const file = path.join(folder, 'model.gguf');
    writeTextModel(file, 64);
    const model = await loadModel(file);
    const session = model.createSession();
    const expected = await session.prefill([1, 2, 3]);
    session.truncate(0);
    const chat = [{ role: 'user', content: 'a' }];
    for (const call of [
      () => session.prefill([1], { signal: signal() }),
      () => session.shortlist([1], 2, { signal: signal() }),
      () => session.score([1, 2], { signal: signal() }),
      () => session.timeline(1, { signal: signal() }),
      async () => {
        const [first] = await Promise.allSettled([session.decode(1, { signal: signal() }), session.decode(2)]);
        if (first.status === 'rejected') throw first.reason;
      },
      () => model.generate([1, 2], { maxTokens: 2, signal: signal() }),
      () => model.generate([1, 2], { maxTokens: 2, signal: signal(), session }),
      () => model.tokenizer.encodeSliced('a b', { signal: signal() }),
      () => model.tokenizer.encodeChatSliced(chat, { signal: signal() }),
      () => loadModel(file, { signal: signal() }).then((other) => other.dispose()),
    ])
      await expectCoded(async () => call());
    session.truncate(0);
    expect(await session.prefill([1, 2, 3])).toEqual(expected);
    session.close();
    await model.dispose();
  });
});

it('work that a signal was too early for may still fail', async () => {
  const unhandled: unknown[] = [];
  const note = (reason: unknown): void => void unhandled.push(reason);
  process.on('unhandledRejection', note);
  try {
    let fail: (reason: unknown) => void = none;
    const work = new Promise<never>((_, reject) => (fail = reject));
    await expectRejection('ABORTED', orAborted(work, AbortSignal.abort()));
    fail(new Error('later'));
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(unhandled).toEqual([]);
  } finally {
    process.off('unhandledRejection', note);
  }
});
