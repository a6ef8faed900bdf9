import { beforeAll, describe, expect, it } from 'vitest';
import type { TokenizerSource } from '../lib/checkpoint/types.js';
import { loadTokenizer, type Tokenizer } from '../lib/tokenizer/index.js';
import { expectCode } from './support/expect_code.js';
import { tinyTokenizer } from './support/tiny_tokenizer.js';
import { FAMILIES, VOCABULARY_TEXTS, vocabularyAsGguf, vocabularySource } from './support/vocabularies.js';

const sentencePiece = vocabularySource('sentencepiece');

/**
 * The SentencePiece vocabulary as newer files have it: no normalizer, but a pre-tokenizer that prepends by this scheme.
 */
function withMetaspace(scheme: string, split: boolean): TokenizerSource {
  const json = sentencePiece.json as Record<string, unknown>;
  const pre_tokenizer = { type: 'Metaspace', replacement: '▁', prepend_scheme: scheme, split };
  return { ...sentencePiece, json: { ...json, normalizer: null, pre_tokenizer } };
}

const SOURCES: Array<[name: string, source: () => TokenizerSource]> = [
  ...FAMILIES.map((family): [string, () => TokenizerSource] => [family, () => vocabularySource(family)]),
  ['sentencepiece, GGUF', () => vocabularyAsGguf('sentencepiece')],
  ...['first', 'always', 'never'].map((scheme): [string, () => TokenizerSource] => [
    `sentencepiece, Metaspace ${scheme}`,
    () => withMetaspace(scheme, scheme !== 'always'),
  ]),
];

it.each([
  ['found in raw text', false, null],
  ['found in normalized text', true, { type: 'NFC' }],
])('stops in a text of nothing but added tokens, %s', async (_where, normalized, normalizer) => {
  const tokenizer = await tinyTokenizer({
    added_tokens: [{ id: 5, content: '<end>', special: true, normalized }],
    normalizer,
  });
  const cut = await tokenizer.encodeSliced('<end>'.repeat(10_000), { limit: 100 });
  expect(cut).toEqual(Array(101).fill(5));
});

describe.each(SOURCES)('a text that continues another: %s', (name, source) => {
  let tokenizer: Tokenizer;
  beforeAll(async () => {
    tokenizer = await loadTokenizer(source());
  });
  const encode = (text: string, after?: number): number[] => tokenizer.encode(text, { addSpecialTokens: false, after });

  it('is encoded as in the whole, when it begins with a word', () => {
    let seams = 0;
    for (const text of VOCABULARY_TEXTS) {
      // A single space between letters: no vocabulary here joins pieces across its left side.
      for (const { index } of text.matchAll(/(?<=[a-z]) (?=[a-z])/g)) {
        const start = encode(text.slice(0, index));
        expect([...start, ...encode(text.slice(index), start.at(-1))], JSON.stringify([text, index])).toEqual(
          encode(text),
        );
        seams++;
      }
    }
    expect(seams).toBeGreaterThan(40);
  });

  it('is taken as it is written, so that the ids of both are the text of both', async () => {
    for (const [start, rest] of [
      ['Once upon a', ' time'],
      ['Once up', 'on a time'],
      ['Once upon a', 'time'],
      ['Once', '  more'],
      ['zwei ', 'Wörter'],
      ['a', '\nb'],
    ] as const) {
      const ids = encode(start);
      const more = encode(rest, ids.at(-1));
      expect(tokenizer.decode([...ids, ...more])).toBe(start + rest);
      expect(await tokenizer.encodeSliced(rest, { addSpecialTokens: false, after: ids.at(-1) })).toEqual(more);
    }
    expect(encode('', 5)).toEqual([]);
  });

  it('after a control token is what it is there within one text', () => {
    const end = tokenizer.idToToken(tokenizer.eosTokenIds[0]!)!;
    for (const rest of ['time', ' time', 'a b'])
      expect([...encode(`Once${end}`), ...encode(rest, tokenizer.eosTokenIds[0])]).toEqual(encode(`Once${end}${rest}`));
    expect(encode(`${end}time`, encode('Once').at(-1))).toEqual(encode(`Once${end}time`).slice(encode('Once').length));
  });

  if (name.startsWith('sentencepiece') && !name.endsWith('never')) {
    it('has no space before it but its own', () => {
      const pieces = (ids: number[]): string => ids.map((id) => tokenizer.idToToken(id)).join('');
      expect(pieces(encode('time'))).toBe('▁time');
      const last = encode('Once upon a').at(-1);
      expect([pieces(encode(' time', last)), pieces(encode('time', last))]).toEqual(['▁time', 'time']);
    });
  }

  it('stops where it is too long', async () => {
    const text = 'word and word '.repeat(2000);
    const cut = await tokenizer.encodeSliced(text, { limit: 100, addSpecialTokens: false });
    expect(cut.length).toBeGreaterThan(100);
    expect(cut.length).toBeLessThan(400);
    expect(encode(text).slice(0, 100)).toEqual(cut.slice(0, 100));
    expect(await tokenizer.encodeSliced('Hello there', { limit: 100 })).toEqual(tokenizer.encode('Hello there'));
  });

  it('refuses to follow what is no token', () => {
    expectCode('INVALID_ARGUMENT', () => encode('a', -1), /^A token id is -1/);
  });
});
