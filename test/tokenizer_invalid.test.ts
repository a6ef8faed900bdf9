import { describe, expect, it } from 'vitest';
import { CqilError } from '../lib/errors.js';
import { loadTokenizer } from '../lib/tokenizer/index.js';
import { expectCode, expectRejection } from './support/expect_code.js';
import { randomUniform } from './support/random.js';
import { TINY_JSON, tinyTokenizer } from './support/tiny_tokenizer.js';

const { model } = TINY_JSON;

/** Sequences of `width` parts in each other. */
function nested(field: string, width: number, depth: number, part: object): object {
  return depth === 0
    ? part
    : {
        type: 'Sequence',
        [field]: Array.from({ length: width }, (_, i) => (i === 0 ? nested(field, width, depth - 1, part) : part)),
      };
}

function template(token: object): object {
  return {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: '<end>' } }, { Sequence: { id: 'A' } }],
    special_tokens: { '<end>': token },
  };
}

describe('a tokenizer.json that cannot be used', () => {
  it.each<[string, object, RegExp]>([
    ['no model', { model: undefined }, /model is undefined; expected an object of type "BPE"/],
    ...['WordPiece', 'WordLevel'].map((type): [string, object, RegExp] => [
      type,
      { model: { type, vocab: {} } },
      new RegExp(`type "${type}"; only "BPE"`),
    ]),
    ...['BPEDecoder', 'WordPiece'].map((type): [string, object, RegExp] => [
      `the decoder ${type}`,
      { decoder: { type } },
      new RegExp(`"${type}"`),
    ]),
    ['another kind of model', { model: { type: 'Unigram', vocab: [['a', 0]] } }, /type "Unigram"; only "BPE"/],
    ['a vocabulary that is a list', { model: { ...model, vocab: ['a'] } }, /vocabulary/],
    ['an id that is no integer', { model: { ...model, vocab: { ...model.vocab, x: 1.5 } } }, /"x" has the id 1\.5/],
    [
      'an id beyond any vocabulary',
      { model: { ...model, vocab: { ...model.vocab, x: 2 ** 40 } } },
      /expected an integer below/,
    ],
    ['merges that are no list', { model: { ...model, merges: 'Ġ a' } }, /merges are "Ġ a"/],
    ['a merge of three', { model: { ...model, merges: ['a b c'] } }, /Merge 0 is "a b c"; expected two pieces/],
    ['a merge of numbers', { model: { ...model, merges: [[1, 2]] } }, /Merge 0/],
    ['a merge to nowhere', { model: { ...model, merges: ['a b'] } }, /"ab", which is not in the vocabulary/],
    [
      'an unknown token of its own',
      { model: { ...model, unk_token: '<unk>' } },
      /unknown token "<unk>" is not in the vocabulary/,
    ],
    ['an unknown token that is no text', { model: { ...model, unk_token: 3 } }, /unknown token is 3/],
    ['word suffixes', { model: { ...model, end_of_word_suffix: '</w>' } }, /end_of_word_suffix "<\/w>"/],
    ['added tokens that are no list', { added_tokens: {} }, /added_tokens/],
    ['an added token without id', { added_tokens: [{ content: '<x>' }] }, /"<x>".*expected content and an id/],
    [
      'added tokens without end',
      { added_tokens: [{ id: 6, content: 'x'.repeat(2 ** 21) }] },
      /more than 1048576 characters/,
    ],
    ['an unknown normalizer', { normalizer: { type: 'BertNormalizer' } }, /normalizer is .*"BertNormalizer"/],
    [
      "SentencePiece's own normalizer",
      { normalizer: { type: 'Precompiled', precompiled_charsmap: '' } },
      /"Precompiled"/,
    ],
    ['a normalizer without content', { normalizer: { type: 'Replace', pattern: { String: ' ' } } }, /normalizer/],
    [
      'a normalizer whose pattern is broken',
      { normalizer: { type: 'Replace', pattern: { Regex: '(' }, content: '' } },
      /cannot be compiled/,
    ],
    ['a normalizer that is text', { normalizer: 'NFC' }, /normalizer is "NFC"; expected an object with a type/],
    ['an unknown pre-tokenizer', { pre_tokenizer: { type: 'Delimiter' } }, /"Delimiter"/],
    ['a sequence of nothing', { pre_tokenizer: { type: 'Sequence' } }, /expected an array of pretokenizers/],
    [
      'a broken pattern',
      { pre_tokenizer: { type: 'Split', pattern: { Regex: '(' }, behavior: 'Isolated' } },
      /cannot be compiled/,
    ],
    ['no pattern', { pre_tokenizer: { type: 'Split', behavior: 'Isolated' } }, /has the pattern undefined/],
    [
      'an unknown way to split',
      { pre_tokenizer: { type: 'Split', pattern: { String: ' ' }, behavior: 'Halved' } },
      /"Halved"; expected Isolated, Removed/,
    ],
    ['words of no characters', { pre_tokenizer: { type: 'FixedLength', length: 0 } }, /words of 0 characters/],
    [
      'a delimiter of two characters',
      { pre_tokenizer: { type: 'CharDelimiterSplit', delimiter: 'ab' } },
      /delimiter "ab"/,
    ],
    [
      'spaces replaced by nothing',
      { pre_tokenizer: { type: 'Metaspace', replacement: '' } },
      /replaces spaces with ""/,
    ],
    [
      'spaces put where nobody knows',
      { pre_tokenizer: { type: 'Metaspace', prepend_scheme: 'sometimes' } },
      /prepend_scheme "sometimes"/,
    ],
    [
      'merges that are left out at random',
      { model: { ...model, dropout: 0.1 } },
      /dropout 0\.1, which makes ids random/,
    ],
    ['no decoder', { decoder: null }, /no decoder/],
    ['an unknown decoder', { decoder: { type: 'CTC' } }, /"CTC"/],
    ['a decoder that strips the end', { decoder: { type: 'Strip', content: ' ', start: 0, stop: 1 } }, /strips/],
    ['an unknown post-processor', { post_processor: { type: 'PairProcessing' } }, /"PairProcessing"/],
    [
      'a post-processor without ids',
      { post_processor: { type: 'BertProcessing', sep: ['<end>', 5], cls: '<end>' } },
      /cls is "<end>"; expected a token and its id/,
    ],
    ['a template without a text', { post_processor: { ...template({ ids: [0] }), single: [] } }, /holds 0 texts/],
    [
      'a template of unknown tokens',
      {
        post_processor: {
          type: 'TemplateProcessing',
          single: [{ SpecialToken: { id: '<none>' } }, { Sequence: { id: 'A' } }],
        },
      },
      /"<none>"/,
    ],
    [
      '20,000 pre-tokenizers',
      { pre_tokenizer: { type: 'Sequence', pretokenizers: Array(20_000).fill({ type: 'Digits' }) } },
      /holds 20000 pretokenizers; at most 64/,
    ],
    [
      'as many, nested',
      { pre_tokenizer: nested('pretokenizers', 9, 8, { type: 'Digits' }) },
      /more than 64 pretokenizers/,
    ],
    [
      '20,000 normalizers',
      { normalizer: { type: 'Sequence', normalizers: Array(20_000).fill({ type: 'NFC' }) } },
      /holds 20000 normalizers/,
    ],
    [
      '500,000 ids before a text',
      { post_processor: template({ ids: Array(500_000).fill(0) }) },
      /puts 500000 tokens around a text/,
    ],
    [
      '500,000 tokens before a text',
      {
        post_processor: { type: 'TemplateProcessing', single: Array(500_000).fill({ SpecialToken: { id: '<end>' } }) },
      },
      /puts 500000 tokens/,
    ],
    [
      '200,000 added tokens',
      { added_tokens: Array.from({ length: 200_000 }, (_, id) => ({ id, content: `${id}` })) },
      /200000 added tokens/,
    ],
    [
      'a pattern of a megabyte',
      { pre_tokenizer: { type: 'Split', pattern: { Regex: 'a'.repeat(1 << 20) } } },
      /a pattern of 1048576 characters/,
    ],
    [
      'a pattern that unfolds without end',
      { pre_tokenizer: { type: 'Split', pattern: { Regex: '((a{99}b){99}c){99}' } } },
      /unfolds to more than/,
    ],
    ['a back-reference', { pre_tokenizer: { type: 'Split', pattern: { Regex: '(a)\\1' } } }, /cannot be compiled/],
    [
      'a decoder that writes a page for a space',
      { decoder: { type: 'Replace', pattern: { String: 'Ġ' }, content: 'x'.repeat(4096) } },
      /puts 4096 characters for one/,
    ],
  ])('%s', (_name, parts, message) => expectRejection('INVALID_TOKENIZER', tinyTokenizer(parts), message));

  it.each<[string, string]>([
    ['(a+)+$', 'a'.repeat(50)],
    ['(a|a)*b', 'a'.repeat(50)],
    ['(?:a?){50}a{50}b', 'a'.repeat(50)],
    ['(\\s+\\s+)+$', `${' '.repeat(200)}x`],
  ])('a pattern that takes exponential time elsewhere ends: %s', async (Regex, text) => {
    const tokenizer = await tinyTokenizer({
      pre_tokenizer: {
        type: 'Sequence',
        pretokenizers: [{ type: 'Split', pattern: { Regex }, behavior: 'Isolated' }, TINY_JSON.pre_tokenizer],
      },
    });
    expect(tokenizer.decode(tokenizer.encode(`${text}c`))).toBe(`${text.replace('x', '')}c`);
  });

  it('a chain of normalizers that doubles the text ends in an error', async () => {
    const double = { type: 'Replace', pattern: { String: 'a' }, content: 'aa' };
    const tokenizer = await tinyTokenizer({
      added_tokens: [],
      normalizer: { type: 'Sequence', normalizers: Array(60).fill(double) },
    });
    expectCode('INVALID_TOKENIZER', () => tokenizer.encode('a'), /64 times as long/);
    await expectRejection('INVALID_TOKENIZER', tokenizer.encodeSliced('a'));
  });

  it('a chain of decoders that doubles a piece ends in an error', async () => {
    const double = { type: 'Replace', pattern: { String: 'a' }, content: 'aa' };
    const tokenizer = await tinyTokenizer({ decoder: { type: 'Sequence', decoders: Array(60).fill(double) } });
    expectCode('INVALID_TOKENIZER', () => tokenizer.decode([0]), /more than 65536 characters of the piece "a"/);
  });

  it('puts what replaces a character as it stands', async () => {
    const tokenizer = await tinyTokenizer({
      added_tokens: [],
      normalizer: { type: 'Replace', pattern: { Regex: 'x+' }, content: '$&a' },
      model: { ...model, vocab: { ...model.vocab, $: 6, '&': 7 } },
    });
    expect(tokenizer.decode(tokenizer.encode('xxb'))).toBe('$&ab');
  });

  it.each([[null], [undefined], [5], ['text'], [[]], [{}]])('%j instead of an object', (json) => {
    return expectRejection(
      'INVALID_TOKENIZER',
      loadTokenizer({ kind: 'huggingface', json, config: null, generationConfig: null }),
    );
  });

  it('parts nested without end', () => {
    let normalizer: object = { type: 'NFC' };
    for (let i = 0; i < 50_000; i++) normalizer = { type: 'Sequence', normalizers: [normalizer] };
    return expectRejection('INVALID_TOKENIZER', tinyTokenizer({ normalizer }), /nested at most/);
  });

  it('any part of the wrong type gives a coded error or a tokenizer that works', async () => {
    const random = randomUniform(5);
    const wrong = [
      null,
      undefined,
      0,
      -1,
      1e9,
      '',
      'x',
      [],
      {},
      true,
      [null],
      { type: 'Sequence' },
      { type: 'ByteLevel' },
    ];
    for (let i = 0; i < 500; i++) {
      const json = mutate(structuredClone(TINY_JSON), random, () => wrong[Math.floor(random() * wrong.length)]);
      try {
        const tokenizer = await loadTokenizer({ kind: 'huggingface', json, config: json, generationConfig: json });
        tokenizer.decode(tokenizer.encode('a b <end> c'));
      } catch (error) {
        expect(error).toBeInstanceOf(CqilError);
        expect(error).toMatchObject({ code: 'INVALID_TOKENIZER' });
      }
    }
  });
});

/** Replaces one random field somewhere in a tree. */
function mutate(tree: unknown, random: () => number, value: () => unknown): unknown {
  if (typeof tree !== 'object' || tree === null || random() < 0.15) return value();
  const keys = Object.keys(tree);
  const key = keys[Math.floor(random() * keys.length)];
  if (key === undefined) return value();
  const fields = tree as Record<string, unknown>;
  return Object.assign(tree, { [key]: mutate(fields[key], random, value) });
}
