import { describe, expect, it } from 'vitest';
import type { GgufStrings, GgufValue, TokenizerSource } from '../lib/checkpoint/types.js';
import { loadTokenizer, type Tokenizer } from '../lib/tokenizer/index.js';
import { countTurns } from './support/event_loop.js';
import { expectRejection } from './support/expect_code.js';
import { ggufStrings } from './support/gguf_strings.js';
import { randomUniform } from './support/random.js';
import { describeShared } from './support/shared_data.js';
import { randomText } from './support/tiny_tokenizer.js';
import { ggufSource } from './support/tokenizer_sources.js';
import { vocabularyAsGguf } from './support/vocabularies.js';

const NONE = 0xffffffff;
const [NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE] = [1, 2, 3, 4, 6];

interface Entry {
  piece: string;
  type?: number;
  score?: number;
}

const BYTES: Entry[] = Array.from({ length: 256 }, (_, byte) => ({
  piece: `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
  type: BYTE,
}));
const CONTROLS: Entry[] = [
  { piece: '<unk>', type: UNKNOWN },
  { piece: '<s>', type: CONTROL },
  { piece: '</s>', type: CONTROL },
];

/** Metadata of a vocabulary; keys of `extra` are under tokenizer.ggml. */
function metadata(model: string, entries: Entry[], extra: Record<string, GgufValue> = {}): Map<string, GgufValue> {
  const fields: Record<string, GgufValue> = {
    model,
    tokens: ggufStrings(entries.map(({ piece }) => piece)),
    token_type: Int32Array.from(entries, ({ type }) => type ?? NORMAL),
    scores: Float32Array.from(entries, ({ score }) => score ?? 0),
    ...extra,
  };
  return new Map(Object.entries(fields).map(([key, value]) => [`tokenizer.ggml.${key}`, value]));
}

function sentencePiece(entries: Entry[], extra: Record<string, GgufValue> = {}): Promise<Tokenizer> {
  const ids = {
    unknown_token_id: 0,
    bos_token_id: 1,
    eos_token_id: 2,
    padding_token_id: NONE,
    seperator_token_id: NONE,
  };
  return loadTokenizer({
    kind: 'gguf',
    metadata: metadata('llama', [...CONTROLS, ...BYTES, ...entries], { ...ids, ...extra }),
  });
}

function byteLevel(extra: Record<string, GgufValue> = {}): Promise<Tokenizer> {
  const pieces = ['a', 'b', 'Ġ', '1', 'ab', 'Ġa', '11'];
  const entries = [
    ...pieces.map((piece) => ({ piece })),
    { piece: '<|im_end|>', type: CONTROL },
    { piece: '[tool]', type: USER_DEFINED },
  ];
  return loadTokenizer({
    kind: 'gguf',
    metadata: metadata('gpt2', entries, { merges: ggufStrings(['a b', 'Ġ a', '1 1']), pre: 'qwen2', ...extra }),
  });
}

/**
 * SentencePiece's merging as llama.cpp has it, the slow way: join the best-scored neighbours, leftmost of equals, until
 * none join.
 */
function mergeByScore(text: string, scores: ReadonlyMap<string, number>): string[] {
  const symbols = [...`▁${text.replaceAll(' ', '▁')}`];
  for (;;) {
    let best = -1;
    let bestScore = -Infinity;
    for (let i = 0; i + 1 < symbols.length; i++) {
      const score = scores.get(symbols[i]! + symbols[i + 1]!);
      if (score !== undefined && (best < 0 || score > bestScore)) [best, bestScore] = [i, score];
    }
    if (best < 0) return symbols;
    symbols.splice(best, 2, symbols[best]! + symbols[best + 1]!);
  }
}

function slowEncode(tokenizer: Tokenizer, text: string, scores: ReadonlyMap<string, number>): number[] {
  return mergeByScore(text, scores).flatMap((symbol) => {
    const id = tokenizer.tokenToId(symbol);
    if (id !== undefined) return [id];
    return [...Buffer.from(symbol)].map((byte) =>
      tokenizer.tokenToId(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`)!,
    );
  });
}

describe('SentencePiece vocabulary of a GGUF file', () => {
  it('merges by score, the leftmost of equals, whatever two pieces join', async () => {
    // Every score stands several times, so ties decide nearly everything.
    // é is no piece of its own: only the joint piece counts.
    const letters = [
      '▁',
      'a',
      'b',
      'c',
      'ab',
      'bc',
      'abc',
      'ca',
      'aa',
      'aaa',
      'aaaa',
      'ba',
      'bab',
      '▁a',
      '▁▁',
      'b▁',
      'cab',
      'aé',
      'aéb',
    ];
    const entries = letters.map((piece, index) => ({ piece, score: -(index % 3) }));
    const tokenizer = await sentencePiece(entries);
    const scores = new Map(entries.map(({ piece, score }) => [piece, score]));
    const random = randomUniform(3);
    for (let i = 0; i < 300; i++) {
      const text = Array.from(
        { length: 1 + Math.floor(random() * 100) },
        () => 'aabbc é'[Math.floor(random() * 7)],
      ).join('');
      expect(tokenizer.encode(text, { addSpecialTokens: false })).toEqual(slowEncode(tokenizer, text, scores));
    }
  });

  it('adds BOS, and a space before the text, unless the file says otherwise', async () => {
    const entries = [{ piece: '▁' }, { piece: 'a', score: -1 }, { piece: '▁a', score: -2 }];
    const spell = (tokenizer: Tokenizer): Array<string | undefined> =>
      tokenizer.encode('a').map((id) => tokenizer.idToToken(id));
    expect(spell(await sentencePiece(entries))).toEqual(['<s>', '▁a']);
    expect(spell(await sentencePiece(entries, { add_bos_token: false, add_eos_token: true }))).toEqual(['▁a', '</s>']);
    const plain = await sentencePiece(entries, { add_space_prefix: false });
    expect(spell(plain)).toEqual(['<s>', 'a']);
    expect(plain.decode(plain.encode(' a'))).toBe(' a');
  });

  it('finds user-defined tokens in text, and never merges text into control tokens', async () => {
    const tokenizer = await sentencePiece([
      { piece: '▁' },
      { piece: '<' },
      { piece: 's' },
      { piece: '>' },
      { piece: '<s' },
      { piece: '[x]', type: USER_DEFINED },
    ]);
    const ids = tokenizer.encode('<s>[x]', { parseSpecialTokens: false, addSpecialTokens: false });
    expect(ids).not.toContain(1);
    expect(ids).toContain(tokenizer.tokenToId('[x]'));
    expect(tokenizer.isSpecial(tokenizer.tokenToId('[x]')!)).toBe(false);
    expect(tokenizer.decode(ids)).toBe('<s>[x]');
  });
});

/** Merges random texts the slow way, too. */
async function expectMergedByScore(source: TokenizerSource): Promise<void> {
  if (source.kind !== 'gguf') throw new Error('not a GGUF vocabulary');
  const pieces = [...(source.metadata.get('tokenizer.ggml.tokens') as GgufStrings)];
  const scores = source.metadata.get('tokenizer.ggml.scores') as Float32Array;
  const scoreOf = new Map(pieces.map((piece, id) => [piece, scores[id]!] as const).slice(259));
  const tokenizer = await loadTokenizer(source);
  const random = randomUniform(11);
  for (let i = 0; i < 40; i++) {
    const text = randomText(random, 200);
    expect(tokenizer.encode(text, { addSpecialTokens: false })).toEqual(slowEncode(tokenizer, text, scoreOf));
  }
}

describe('a SentencePiece vocabulary that was trained', () => {
  it('merges as the slow way does', () => expectMergedByScore(vocabularyAsGguf('sentencepiece')));
});

describeShared('SentencePiece vocabularies of real GGUF files', () => {
  it.each([['models/stories260K/stories260Ktok512.gguf'], ['tokenizers/llamacpp-vocab/ggml-vocab-llama-spm.gguf']])(
    '%s merges as the slow way does',
    async (file) => {
      await expectMergedByScore(await ggufSource(file));
    },
  );
});

describe('byte-level vocabulary of a GGUF file', () => {
  const spell = (tokenizer: Tokenizer, text: string): Array<string | undefined> =>
    tokenizer.encode(text).map((id) => tokenizer.idToToken(id));

  it('cuts text by the pre-tokenizer that the file names', async () => {
    expect(spell(await byteLevel(), 'ab a11')).toEqual(['ab', 'Ġa', '1', '1']);
    expect(spell(await byteLevel({ pre: 'gpt-2' }), 'ab a11')).toEqual(['ab', 'Ġa', '11']);
    expect(spell(await byteLevel({ pre: 'smollm' }), 'ab a11')).toEqual(['ab', 'Ġa', '1', '1']);
    expect(spell(await byteLevel({ pre: 'default' }), 'ab a11')).toEqual(['ab', 'Ġa', '11']);
  });

  it('knows control tokens, user-defined tokens and the ends of generation', async () => {
    const tokenizer = await byteLevel({ eos_token_id: NONE, eot_token_id: 7 });
    expect(tokenizer.eosTokenIds).toEqual([7]);
    expect(spell(tokenizer, 'a[tool]<|im_end|>b')).toEqual(['a', '[tool]', '<|im_end|>', 'b']);
    expect(tokenizer.decode(tokenizer.encode('a[tool]<|im_end|>b'))).toBe('a[tool]b');
  });

  it("adds BOS by the pre-tokenizer's own rule, and the file's own word before that", async () => {
    expect(spell(await byteLevel({ pre: 'llama-bpe', bos_token_id: 7 }), 'a')).toEqual(['<|im_end|>', 'a']);
    expect(spell(await byteLevel({ pre: 'llama-bpe', bos_token_id: 7, add_bos_token: false }), 'a')).toEqual(['a']);
    expect(spell(await byteLevel({ bos_token_id: 7 }), 'a')).toEqual(['a']);
  });

  it('is read in slices when it is large, and not to the end when that is aborted', async () => {
    const entries = Array.from({ length: 200_000 }, (_, id) => ({ piece: `piece ${id}` }));
    const source = {
      kind: 'gguf',
      metadata: metadata('gpt2', entries, { merges: ggufStrings([]), pre: 'gpt-2' }),
    } as const;
    const { result: tokenizer, turns } = await countTurns(() => loadTokenizer(source));
    expect(tokenizer.idToToken(199_999)).toBe('piece 199999');
    expect(turns).toBeGreaterThan(3);

    const controller = new AbortController();
    const loading = loadTokenizer(source, 0, controller.signal);
    setImmediate(() => controller.abort());
    await expectRejection('ABORTED', loading);
  });

  it('gives both of two ids with one piece their bytes', async () => {
    const tokenizer = await loadTokenizer({
      kind: 'gguf',
      metadata: metadata('gpt2', [{ piece: 'a' }, { piece: 'a' }], { merges: ggufStrings([]), pre: 'gpt-2' }),
    });
    expect(tokenizer.decode([0, 1])).toBe('aa');
  });
});

describe('a vocabulary of text that is merged', () => {
  const entries: Entry[] = [...BYTES, ...['▁', 'a', 'b', '\n', '▁a', 'ab', '\n\n\n'].map((piece) => ({ piece }))];
  const spelled = async (model: string, pre: string | undefined, text: string): Promise<Array<string | undefined>> => {
    const extra: Record<string, GgufValue> = { merges: ggufStrings(['▁ a', 'a b']), ...(pre !== undefined && { pre }) };
    const tokenizer = await loadTokenizer({ kind: 'gguf', metadata: metadata(model, entries, extra) });
    const ids = tokenizer.encode(text);
    expect(tokenizer.decode(ids)).toBe(text);
    return ids.map((id) => tokenizer.idToToken(id));
  };

  it('is written with ▁ for spaces and bytes for what it lacks, without a space before the text', async () => {
    expect(await spelled('gpt2', 'sarvam-moe', 'ab aé')).toEqual(['ab', '▁a', '<0xC3>', '<0xA9>']);
    expect(await spelled('gemma4', undefined, 'ab aé')).toEqual(['ab', '▁a', '<0xC3>', '<0xA9>']);
  });

  it('takes a run of line breaks whole if its name says so', async () => {
    expect(await spelled('gpt2', 'gemma4', 'a\n\n\nb\n\n')).toEqual(['a', '\n\n\n', 'b', '\n', '\n']);
    expect(await spelled('gpt2', 'sarvam-moe', 'a\n\n\nb')).toEqual(['a', '\n', '\n', '\n', 'b']);
  });
});

describe('a GGUF vocabulary that cannot be used', () => {
  it.each<[string, () => Promise<unknown>, RegExp]>([
    [
      'unknown model',
      () => loadTokenizer({ kind: 'gguf', metadata: metadata('rwkv', [{ piece: 'a' }]) }),
      /"rwkv".*"llama", "gpt2" or "gemma4"/,
    ],
    [
      'no model',
      () => loadTokenizer({ kind: 'gguf', metadata: new Map([['tokenizer.ggml.tokens', ggufStrings(['a'])]]) }),
      /tokenizer\.ggml\.model/,
    ],
    ['unknown pre-tokenizer', () => byteLevel({ pre: 'klingon' }), /"klingon" is unknown; expected one of .*llama-bpe/],
    [
      "llama.cpp's names without a rule here",
      () => byteLevel({ pre: 'afmoe' }),
      /"afmoe" is not supported: llama\.cpp's table/,
    ],
    [
      'a pre-tokenizer for embeddings',
      () => byteLevel({ pre: 'whitespace' }),
      /"whitespace" is not supported: .*drops spaces/,
    ],
    ['a pre-tokenizer of the wrong type', () => byteLevel({ pre: 3 }), /pre-tokenizer 3/],
    ['no tokens', () => loadTokenizer({ kind: 'gguf', metadata: metadata('llama', [], {}) }), /tokens/],
    ['tokens of the wrong type', () => byteLevel({ tokens: [1, 2] }), /array of strings/],
    ['merges of the wrong type', () => byteLevel({ merges: 1 }), /merges are 1; expected an array/],
    ['types that do not match', () => byteLevel({ token_type: Int32Array.of(1) }), /token_type.*expected 9 numbers/],
    ['scores that do not match', () => sentencePiece([], { scores: [1] }), /scores/],
    [
      'scores that are no numbers',
      () => sentencePiece([], { scores: Float32Array.from({ length: 259 }, () => Number.NaN) }),
      /scores/,
    ],
    [
      'control tokens without end',
      () =>
        loadTokenizer({
          kind: 'gguf',
          metadata: metadata(
            'gpt2',
            Array.from({ length: 200_000 }, (_, id) => ({ piece: `${id}`, type: CONTROL })),
          ),
        }),
      /More than 131072 tokens are control tokens/,
    ],
    [
      'no merges',
      () => loadTokenizer({ kind: 'gguf', metadata: metadata('gpt2', [{ piece: 'a' }], { pre: 'gpt-2' }) }),
      /merges/,
    ],
    ['merges to nowhere', () => byteLevel({ merges: ggufStrings(['a 1']) }), /"a1", which is not in the vocabulary/],
  ])('%s', (_name, load, message) => expectRejection('INVALID_TOKENIZER', load(), message));
});
