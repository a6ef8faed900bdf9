import { describe, expect, it } from 'vitest';
import { fromOniguruma, libraryTranslation, plainTranslation } from '../lib/tokenizer/patterns/oniguruma.js';
import { GPT2_PATTERN } from '../lib/tokenizer/pre_tokenizer.js';
import { preTokenizerRule } from '../lib/tokenizer/gguf_pre_tokenizers.js';
import { randomUniform } from './support/random.js';

const PARTS = [
  ['a', 'Z', '0', ' ', "'", '"', '\\r', '\\n', '\\s', '\\S', '\\p{L}', '\\P{N}', '\\p{Lu}', '\\p{Cx}', '\\p{Han}'],
  ['[a-z]', '[^\\s\\p{L}]', '[A-Za-z0-9]', '[\\r\\n/]', '[z-a]', '[^ ]', '[', ']', '[]', '[\\S\\p{N}]'],
  ['(?:', '(?!', '(?=', '(?<=', '(', ')', '|', "(?i:'s|'t|'re|'ve|'m|'ll|'d)", '(?i:a)'],
  ['*', '+', '?', '{2}', '{1,3}', '{2,}', '{,3}', '{3,1}', '{', '}'],
  ['.', '^', '$', '/', '\\d', '\\w', '\\b', '\\/', '-', '&&', '#', '\n', 'é', '\u{1f600}', '\\'],
].flat();

/** What a translation gives: its result, or that it throws. */
function outcome(translate: (pattern: string) => string, pattern: string): string | undefined {
  try {
    return translate(pattern);
  } catch {
    return undefined;
  }
}

describe('translating patterns without the library', () => {
  it('is what the library does, whatever the pattern', () => {
    const random = randomUniform(31);
    let plain = 0;
    for (let i = 0; i < 30_000; i++) {
      const length = 1 + Math.floor(random() * 7);
      // The first parts of the list are those that most published patterns have.
      const pattern = Array.from({ length }, () => PARTS[Math.floor(random() ** 2 * PARTS.length)]).join('');
      const translated = plainTranslation(pattern);
      if (translated === undefined) continue;
      plain++;
      expect(translated, pattern).toBe(outcome(libraryTranslation, pattern));
    }
    expect(plain).toBeGreaterThan(3_000);
  });

  it.each([
    ['GPT-2', [GPT2_PATTERN]],
    ['LLaMA 3', preTokenizerRule('llama-bpe').patterns],
    ['Qwen2', preTokenizerRule('qwen2').patterns],
    ['GPT-4o', preTokenizerRule('gpt-4o').patterns],
    ['SmolLM', preTokenizerRule('smollm').patterns],
  ])('is enough for %s', (_, patterns) => {
    for (const pattern of patterns) expect(plainTranslation(pattern)).toBe(libraryTranslation(pattern));
  });

  it('leaves the rest to the library', () => {
    for (const pattern of ['\\d+', 'a++', '(a)', '.', '^a$', '(?i:a)', '\\p{Han}', '[!-/]', '{'])
      expect([plainTranslation(pattern), fromOniguruma(pattern)]).toEqual([undefined, libraryTranslation(pattern)]);
  });
});
