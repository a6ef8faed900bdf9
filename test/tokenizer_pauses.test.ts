import { afterEach, describe, expect, it, vi } from 'vitest';
import { loadTokenizer, type Tokenizer } from '../lib/tokenizer/index.js';
import { createPreTokenizer } from '../lib/tokenizer/pre_tokenizer.js';
import { expectRejection } from './support/expect_code.js';
import { vocabularySource, type Family } from './support/vocabularies.js';

/**
 * Processor time between two looks at the clock, of all threads: far above what a slice takes, far below what a run
 * took in one piece.
 */
const MOST_MS = 100;

const LONG = 24_000;

/** Runs without a place to cut for one vocabulary or another. */
const RUNS: Record<string, string> = {
  letters: 'a'.repeat(LONG),
  'two letters': 'th'.repeat(LONG / 2),
  spaces: `x${' '.repeat(LONG)}x`,
  newlines: '\n'.repeat(LONG),
  digits: '1'.repeat(LONG),
  punctuation: '!?'.repeat(LONG / 2),
  'Chinese without punctuation': Array.from({ length: LONG }, (_, i) =>
    String.fromCharCode(0x4e00 + ((i * 7919) % 20_000)),
  ).join(''),
  emoji: '😀'.repeat(LONG / 2),
  'combining marks': `a${'\u0301\u0323'.repeat(LONG / 2)}`,
};

const FAMILIES: Family[] = ['llama-3', 'qwen2', 'deepseek-llm', 'sentencepiece'];

afterEach(() => vi.restoreAllMocks());

/** Calls `look` whenever work in slices looks at the clock, which it does after every step. */
function watchSteps(look: () => void): void {
  const now = performance.now.bind(performance);
  vi.spyOn(performance, 'now').mockImplementation(() => {
    look();
    return now();
  });
}

it('pauses where a pre-tokenizer drops or joins all that it finds', () => {
  for (const config of [
    { type: 'WhitespaceSplit' },
    { type: 'CharDelimiterSplit', delimiter: ' ' },
    { type: 'Split', pattern: { Regex: ' ' }, behavior: 'Contiguous' },
  ]) {
    const found = [...createPreTokenizer(config)(' '.repeat(LONG), 'start')];
    expect(found.filter((word) => word === undefined).length).toBeGreaterThan(LONG / 8192 - 1);
  }
});

describe.each(FAMILIES)('a run without a place to cut: %s', (family) => {
  let tokenizer: Promise<Tokenizer> | undefined;
  const load = (): Promise<Tokenizer> => (tokenizer ??= loadTokenizer(vocabularySource(family)));

  it.each(Object.entries(RUNS))('%s: many small steps, and the ids of encode', async (name, text) => {
    const loaded = await load();
    let ids: number[] = [];
    let longest = Infinity;
    // A collection of garbage or a compilation may fall into a step, but not into one of every run.
    for (let run = 0; run < 4 && longest >= MOST_MS; run++) {
      let steps = 0;
      let before = process.cpuUsage();
      longest = 0;
      watchSteps(() => {
        const { user, system } = process.cpuUsage(before);
        longest = Math.max(longest, (user + system) / 1000);
        before = process.cpuUsage();
        steps++;
      });
      ids = await loaded.encodeSliced(text);
      vi.restoreAllMocks();
      expect(steps).toBeGreaterThan(LONG / 512);
    }
    expect(longest).toBeLessThan(MOST_MS);
    if (name === 'letters') expect(ids).toEqual(loaded.encode(text));
  });

  it('ends soon after it is aborted', async () => {
    const loaded = await load();
    const text = RUNS.letters!.repeat(4);
    let steps = 0;
    watchSteps(() => steps++);
    await loaded.encodeSliced(text);
    const all = steps;
    steps = 0;
    const controller = new AbortController();
    const encoding = loaded.encodeSliced(text, { signal: controller.signal });
    setImmediate(() => controller.abort());
    await expectRejection('ABORTED', encoding);
    expect(steps).toBeLessThan(all / 2);
  });
});
