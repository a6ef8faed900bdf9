import { beforeAll, describe, expect, it } from 'vitest';
import type { TokenizerSource } from '../lib/checkpoint/types.js';
import { loadTokenizer, type Tokenizer } from '../lib/tokenizer/index.js';
import {
  FAMILIES,
  VOCABULARY_TEXTS,
  vocabularyAsGguf,
  vocabularyGolden,
  vocabularySource,
  type Family,
  type VocabularyGolden,
} from './support/vocabularies.js';

/** llama.cpp's names of the families' pre-tokenizers that the reader of GGUF files knows. */
const GGUF_NAMES: Partial<Record<Family, string>> = {
  'gpt-2': 'gpt-2',
  'llama-3': 'llama-bpe',
  qwen2: 'qwen2',
  'deepseek-llm': 'deepseek-llm',
  'deepseek-coder': 'deepseek-coder',
  'deepseek-v3': 'deepseek-v3',
  sentencepiece: 'none: it is not asked for',
  gemma: 'none: it is not asked for',
  phi3: 'none: it is not asked for',
};

const SOURCES: Array<[name: string, family: Family, source: () => TokenizerSource]> = [
  ...FAMILIES.map((family): [string, Family, () => TokenizerSource] => [
    `${family}, tokenizer.json`,
    family,
    () => vocabularySource(family),
  ]),
  ...Object.entries(GGUF_NAMES).map(([family, pre]): [string, Family, () => TokenizerSource] => [
    `${family}, GGUF`,
    family as Family,
    () => vocabularyAsGguf(family as Family, pre),
  ]),
];

describe.each(SOURCES)("the reference library's ids: %s", (name, family, source) => {
  let tokenizer: Tokenizer;
  let golden: VocabularyGolden;
  beforeAll(async () => {
    tokenizer = await loadTokenizer(source());
    golden = vocabularyGolden(family);
  });
  // llama.cpp normalizes no text, and in its files runs of spaces are spelled with spaces.
  const isCovered = (text: string): boolean =>
    !name.endsWith('GGUF') ||
    ((family !== 'qwen2' || text === text.normalize('NFC')) && (family !== 'gemma' || !text.includes('▁')));

  it('encodes every text', () => {
    expect(golden.ids).toHaveLength(VOCABULARY_TEXTS.length);
    VOCABULARY_TEXTS.forEach((text, index) => {
      if (isCovered(text))
        expect(tokenizer.encode(text, { addSpecialTokens: false }), JSON.stringify(text)).toEqual(golden.ids[index]);
    });
  });

  it('encodes them in slices, too', async () => {
    for (const [index, text] of VOCABULARY_TEXTS.entries()) {
      if (isCovered(text))
        expect(await tokenizer.encodeSliced(text, { addSpecialTokens: false }), JSON.stringify(text)).toEqual(
          golden.ids[index],
        );
    }
  });

  it('decodes the ids to the text', () => {
    golden.ids.forEach((ids, index) => {
      expect(tokenizer.decode(ids), JSON.stringify(VOCABULARY_TEXTS[index])).toBe(
        golden.decoded[index] ?? VOCABULARY_TEXTS[index],
      );
    });
  });

  it('finds control tokens in text', () => {
    for (const { text, ids } of golden.specials.filter(({ text }) => isCovered(text)))
      expect(tokenizer.encode(text, { addSpecialTokens: false }), text).toEqual(ids);
  });

  it('puts before a text what the library does', () => {
    if (golden.prefix.length > 0)
      expect(tokenizer.encode('Hello').slice(0, golden.prefix.length)).toEqual(golden.prefix);
  });
});
