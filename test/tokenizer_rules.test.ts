// Rules that a tokenizer.json may have, each on a vocabulary small enough to see what must come of it.
import { describe, expect, it } from 'vitest';
import { loadTokenizer } from '../lib/tokenizer/index.js';
import { expectCode, expectRejection } from './support/expect_code.js';
import { TINY_JSON, tinyTokenizer } from './support/tiny_tokenizer.js';

describe('a tokenizer.json', () => {
  it('refuses ids outside the vocabulary', async () => {
    const tokenizer = await tinyTokenizer();
    for (const id of [-1, tokenizer.vocabSize, 1.5, Number.NaN, '1' as unknown as number]) {
      expectCode('INVALID_ARGUMENT', () => tokenizer.decode([0, id]), /token id/);
      expectCode('INVALID_ARGUMENT', () => tokenizer.detokenizer().push(id));
      expectCode('INVALID_ARGUMENT', () => tokenizer.tokenBytes(id));
    }
    expectCode('INVALID_ARGUMENT', () => tokenizer.encode(5 as unknown as string), /expected a string/);
  });

  it("gives no text to a model's rows beyond the vocabulary", async () => {
    const { vocabSize } = await tinyTokenizer();
    const tokenizer = await loadTokenizer(
      { kind: 'huggingface', json: TINY_JSON, config: {}, generationConfig: {} },
      vocabSize + 10,
    );
    expect(tokenizer.decode([vocabSize + 9])).toBe('');
    expectCode('INVALID_ARGUMENT', () => tokenizer.decode([vocabSize + 10]));
  });

  it('finds the longest added token, strips around it, and keeps whole words whole', async () => {
    const tokenizer = await tinyTokenizer({
      added_tokens: [
        { id: 20, content: '<a>', special: true },
        { id: 21, content: '<a><b>', special: true, lstrip: true, rstrip: true },
        { id: 22, content: 'ab', special: false, normalized: false, single_word: true },
      ],
    });
    const encode = (text: string): Array<string | undefined> =>
      tokenizer.encode(text).map((id) => tokenizer.idToToken(id));
    expect(encode('a<a>b')).toEqual(['a', '<a>', 'b']);
    expect(encode('a  <a><b>  b')).toEqual(['a', '<a><b>', 'b']);
    expect(encode('ab cab')).toEqual(['ab', 'Ġ', 'c', 'a', 'b']);
    expect(tokenizer.decode([0, 20, 22])).toBe('aab');
    expect(tokenizer.decode([0, 20, 22], { skipSpecialTokens: false })).toBe('a<a>ab');
  });

  it('reads the forms in which SentencePiece vocabularies come', async () => {
    const vocab = { '▁': 0, a: 1, b: 2, '▁a': 3, '▁▁': 4, '<0xE9>': 6, '<0xC3>': 7, '<0xA9>': 8 };
    const model = { type: 'BPE', vocab, merges: ['▁ a', '▁ ▁'], byte_fallback: true };
    const encode = async (
      pre_tokenizer: object,
      text: string,
      decoder: object = { type: 'Metaspace' },
    ): Promise<[Array<string | undefined>, string]> => {
      const tokenizer = await tinyTokenizer({ model, pre_tokenizer: { type: 'Metaspace', ...pre_tokenizer }, decoder });
      const ids = tokenizer.encode(text);
      return [ids.map((id) => tokenizer.idToToken(id)), tokenizer.decode(ids)];
    };
    expect(await encode({ prepend_scheme: 'always', split: false }, 'a  b')).toEqual([['▁a', '▁▁', 'b'], 'a  b']);
    expect(await encode({ prepend_scheme: 'always' }, 'a  b')).toEqual([['▁a', '▁', '▁', 'b'], 'a  b']);
    expect((await encode({ prepend_scheme: 'first', split: false }, 'a<end>a'))[0]).toEqual(['▁a', '<end>', 'a']);
    expect((await encode({ prepend_scheme: 'always', split: false }, 'a<end>a'))[0]).toEqual(['▁a', '<end>', '▁a']);
    expect(await encode({ add_prefix_space: false }, 'a a', { type: 'Metaspace', prepend_scheme: 'never' })).toEqual([
      ['a', '▁a'],
      'a a',
    ]);
    const decoders = [
      { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
      { type: 'ByteFallback' },
      { type: 'Fuse' },
      { type: 'Strip', content: ' ', start: 1, stop: 0 },
    ];
    expect(await encode({ split: false }, 'é a', { type: 'Sequence', decoders })).toEqual([
      ['▁', '<0xC3>', '<0xA9>', '▁a'],
      'é a',
    ]);
  });

  it('merges in the order of the list, by what is joined and where, the last place of a merge that stands twice', async () => {
    const vocab = { a: 30, b: 31, c: 32, ab: 33, bc: 34, abc: 35, ' ': 36, 'a ': 37, ' b': 38, 'a b': 39 };
    const encode = async (merges: unknown[], text: string): Promise<Array<string | undefined>> => {
      const tokenizer = await tinyTokenizer({ model: { type: 'BPE', vocab, merges }, pre_tokenizer: null });
      return tokenizer.encode(text).map((id) => tokenizer.idToToken(id));
    };
    expect(await encode(['a b', 'b c', 'a bc'], 'abc')).toEqual(['ab', 'c']);
    expect(await encode(['a b', 'b c', 'a bc', 'ab c'], 'abc')).toEqual(['abc']);
    expect(await encode(['b c', 'a b', 'a bc'], 'abc')).toEqual(['abc']);
    expect(await encode(['a b', 'b c', 'a b'], 'abc')).toEqual(['a', 'bc']);
    expect(
      await encode(
        [
          ['a', ' '],
          [' ', 'b'],
          ['a ', 'b'],
        ],
        'a b',
      ),
    ).toEqual(['a b']);
    expect(
      await encode(
        [
          [' ', 'b'],
          ['a', ' '],
          ['a ', 'b'],
        ],
        'a b',
      ),
    ).toEqual(['a', ' b']);
  });

  it('drops characters that stand for nothing before anything merges, even in long words', async () => {
    const vocab = { a: 0, b: 1, ab: 2, aabb: 3, é: 4 };
    const tokenizer = await tinyTokenizer({
      model: { type: 'BPE', vocab, merges: ['a b'], ignore_merges: true },
      pre_tokenizer: null,
    });
    // What the reference library gives.
    expect(tokenizer.encode('axb')).toEqual([2]);
    expect(tokenizer.encode('a😀xbxé')).toEqual([2, 4]);
    expect(tokenizer.encode('aaxbb')).toEqual([0, 2, 1]);
    expect(tokenizer.encode(`a${'😀x'.repeat(3000)}b`)).toEqual([2]);
    expect(tokenizer.encode('x'.repeat(100))).toEqual([]);
  });

  it('swallows the whitespace of Unicode beside a token, not that of JavaScript', async () => {
    const vocab = { a: 0, '\ufeff': 1, '\u0085': 2, '\n': 3 };
    const tokenizer = await tinyTokenizer({
      model: { type: 'BPE', vocab, merges: [] },
      pre_tokenizer: null,
      added_tokens: [
        { id: 5, content: '<r>', rstrip: true, special: true },
        { id: 6, content: '<l>', lstrip: true, special: true },
      ],
    });
    expect(tokenizer.encode('<r>\n\ufeffa')).toEqual([5, 1, 0]);
    expect(tokenizer.encode('<r>\n\u0085a')).toEqual([5, 0]);
    expect(tokenizer.encode('a\ufeff\n<l>')).toEqual([0, 1, 6]);
    expect(tokenizer.encode('a\u0085<l>')).toEqual([0, 6]);
  });

  // What the reference library gives.
  const replace = { type: 'Replace', pattern: { String: '_' }, content: ' ' };
  const strip = { type: 'Strip', content: ' ', start: 1, stop: 0 };
  it.each([
    ['Metaspace', [{ type: 'Metaspace', replacement: '_' }], [' a a', 'a  a', 'a', '<ab>  a'] as const],
    ['Strip, of pieces', [replace, strip], ['aa', ' a a', ' a', '<a b> a'] as const],
    ['Strip, of a text', [replace, { type: 'Fuse' }, strip], ['a a', ' a  a', ' a', '<a b>  a'] as const],
  ])('decodes spaces as the library does: %s', async (_, decoders, [literal, marked, skipped, named]) => {
    const tokenizer = await tinyTokenizer({
      model: { type: 'BPE', vocab: { a: 0, ' a': 1, __a: 2, _a: 3 }, merges: [] },
      pre_tokenizer: null,
      added_tokens: [{ id: 5, content: '<a_b>', special: true }],
      decoder: { type: 'Sequence', decoders },
    });
    const cases: Array<[number[], string, boolean]> = [
      [[1, 3], literal, true],
      [[2, 2], marked, true],
      [[5, 2], skipped, true],
      [[5, 2], named, false],
    ];
    for (const [ids, text, skipSpecialTokens] of cases) {
      expect(tokenizer.decode(ids, { skipSpecialTokens })).toBe(text);
      const detokenizer = tokenizer.detokenizer({ skipSpecialTokens });
      for (let run = 0; run < 2; run++)
        expect(ids.map((id) => detokenizer.push(id)).join('') + detokenizer.flush()).toBe(text);
    }
  });

  it('joins runs of unknown characters where the model says so, even in long words', async () => {
    const vocab = { '<unk>': 0, a: 1 };
    const parts = {
      model: { type: 'BPE', vocab, merges: [], unk_token: '<unk>', fuse_unk: true },
      pre_tokenizer: null,
    };
    expect((await tinyTokenizer(parts)).encode(`a${'xyz'.repeat(100)}a`)).toEqual([1, 0, 1]);
    expect((await tinyTokenizer({ ...parts, model: { ...parts.model, fuse_unk: false } })).encode('axya')).toEqual([
      1, 0, 0, 1,
    ]);
  });

  it('lets add_bos_token and add_eos_token overrule the post-processor', async () => {
    const template = {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    };
    const json = {
      post_processor: template,
      added_tokens: [
        { id: 20, content: '<s>', special: true },
        { id: 21, content: '</s>', special: true },
      ],
    };
    const names = { bos_token: '<s>', eos_token: { content: '</s>' } };
    expect((await tinyTokenizer(json, names)).encode('a')).toEqual([20, 0]);
    expect((await tinyTokenizer(json, { ...names, add_bos_token: false })).encode('a')).toEqual([0]);
    expect((await tinyTokenizer(json, { ...names, add_eos_token: true })).encode('a')).toEqual([20, 0, 21]);
    expect(
      (await tinyTokenizer({ ...json, post_processor: null }, { ...names, add_bos_token: true })).encode('a'),
    ).toEqual([20, 0]);
  });

  it('says why there is no tokenizer', () => {
    return expectRejection(
      'INVALID_TOKENIZER',
      loadTokenizer({ kind: 'none', reason: 'the folder has no tokenizer.json.' }),
      /no tokenizer\.json/,
    );
  });
});
