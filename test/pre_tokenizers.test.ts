import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { preTokenizerRule, splitsBy } from '../lib/tokenizer/gguf_pre_tokenizers.js';
import { createNormalizer } from '../lib/tokenizer/normalizer.js';
import { createPreTokenizer } from '../lib/tokenizer/pre_tokenizer.js';
import { loadTokenizer } from '../lib/tokenizer/index.js';
import type { Component } from '../lib/tokenizer/tokenizer_json.js';
import { vocabularySource } from './support/vocabularies.js';

/** What the reference library makes of the texts (test/fixtures/make_pre_tokenizers.py). */
const GOLDENS = JSON.parse(readFileSync(path.join(__dirname, 'fixtures', 'pre_tokenizers.json'), 'utf8')) as {
  texts: string[];
  components: Array<{ config: Component; words: string[][] }>;
  normalizers: Array<{ config: Component; texts: string[] }>;
  processors: Array<{ config: Component; ids: number[][] }>;
  scripts: { text: string; words: string[] };
  rules: Record<string, string[][]>;
};

function expectWords(config: Component, words: string[][]): void {
  const preTokenize = createPreTokenizer(config);
  GOLDENS.texts.forEach((text, index) => {
    const found = [...preTokenize(text, 'start')].filter((word) => word !== undefined && word !== '');
    expect(found, JSON.stringify(text)).toEqual(words[index]);
  });
}

describe("pre-tokenizers cut as the reference library's do", () => {
  it.each(GOLDENS.components.map(({ config, words }) => [JSON.stringify(config), config, words] as const))(
    '%s',
    (_name, config, words) => expectWords(config, words),
  );
});

it('scripts are those of Unicode 9, also where a character has another by now', () => {
  const { text, words } = GOLDENS.scripts;
  expect([...createPreTokenizer({ type: 'UnicodeScripts' })(text, 'start')]).toEqual(words);
});

describe("post-processors put the same ids around a text as the reference library's", () => {
  it.each(GOLDENS.processors.map(({ config, ids }) => [JSON.stringify(config), config, ids] as const))(
    '%s',
    async (_name, config, ids) => {
      const source = vocabularySource('gpt-2');
      const json = { ...(source.json as object), post_processor: config };
      const tokenizer = await loadTokenizer({ ...source, json, config: {} });
      expect(['', ...GOLDENS.texts.slice(0, 4)].map((text) => tokenizer.encode(text))).toEqual(ids);
    },
  );
});

describe("the rules of llama.cpp's names cut as the reference library does", () => {
  it.each(Object.entries(GOLDENS.rules))('%s', (name, words) => {
    expectWords({ type: 'Sequence', pretokenizers: splitsBy(preTokenizerRule(name)) }, words);
  });
});

describe("normalizers change texts as the reference library's do", () => {
  it.each(GOLDENS.normalizers.map(({ config, texts }) => [JSON.stringify(config), config, texts] as const))(
    '%s',
    (_name, config, texts) => {
      const normalize = createNormalizer(config);
      const normalized = (text: string): string => {
        const work = normalize(text);
        for (;;) {
          const { done, value } = work.next();
          if (done) return value;
        }
      };
      GOLDENS.texts.forEach((text, index) => expect(normalized(text), JSON.stringify(text)).toBe(texts[index]));
      const [long, expected] = [GOLDENS.texts, texts].map(
        (all) =>
          `x${all
            .map((one) => `|${one}`)
            .join('')
            .repeat(60)}|x`,
      );
      if (config.type !== 'Strip') expect(normalized(long!)).toBe(expected);
    },
  );
});
