import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { loadTokenizer, type Tokenizer } from '../lib/tokenizer/index.js';
import { expectRejection } from './support/expect_code.js';
import { randomUniform } from './support/random.js';
import { writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';
import { TINY_JSON } from './support/tiny_tokenizer.js';
import {
  VOCABULARY_TEXTS,
  vocabularyFolder,
  vocabularyGolden,
  vocabularySource,
  type Family,
} from './support/vocabularies.js';

const folder = tempFolder();
let made = 0;

/** The tokenizer of a model's folder with these files beside the weights; what is no text is written as JSON. */
async function tokenizerOf(files: Record<string, unknown>): Promise<Tokenizer> {
  const home = path.join(folder, String(made++));
  writeRandomModel(home, { format: 'huggingface' });
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(
      path.join(home, name),
      typeof content === 'string' || content instanceof Uint8Array ? content : JSON.stringify(content),
    );
  }
  return loadTokenizer(await (await openCheckpoint(home)).readTokenizer());
}

function expectGolden(tokenizer: Tokenizer, family: Family): void {
  const golden = vocabularyGolden(family);
  VOCABULARY_TEXTS.forEach((text, index) =>
    expect(tokenizer.encode(text, { addSpecialTokens: false }), JSON.stringify(text)).toEqual(golden.ids[index]),
  );
}

interface ByteLevelJson {
  model: { vocab: Record<string, number>; merges: string[] };
  added_tokens: Array<{ id: number; content: string }>;
}

/** vocab.json and merges.txt of a family. */
function vocabAndMerges(family: Family): Record<string, unknown> {
  const { model } = vocabularySource(family).json as ByteLevelJson;
  const merges = model.merges.map((merge) => (Array.isArray(merge) ? merge.join(' ') : merge));
  return { 'vocab.json': model.vocab, 'merges.txt': `#version: 0.2\n${merges.join('\n')}\n` };
}

describe('a folder without tokenizer.json', () => {
  const model = readFileSync(path.join(vocabularyFolder('sentencepiece'), 'tokenizer.model'));

  it('is read by its tokenizer.model', async () => {
    const tokenizer = await tokenizerOf({ 'tokenizer.model': model });
    expectGolden(tokenizer, 'sentencepiece');
    expect([tokenizer.bosTokenId, ...tokenizer.eosTokenIds]).toEqual([1, 2]);
    expect(tokenizer.encode('Hello').slice(0, 1)).toEqual([1]);
  });

  it("is refused where its tokenizer.model defines pieces of its own, as Gemma's does", async () => {
    const gemma = readFileSync(path.join(vocabularyFolder('gemma'), 'tokenizer.model'));
    await expectRejection('INVALID_TOKENIZER', tokenizerOf({ 'tokenizer.model': gemma }), /finds the piece "<mask>"/);
  });

  it('is read by vocab.json and merges.txt where its class says how text is cut', async () => {
    const { added_tokens: added } = vocabularySource('qwen2').json as ByteLevelJson;
    const decoder = Object.fromEntries(added.map(({ id, content }) => [id, { content, special: true }]));
    const qwen2 = await tokenizerOf({
      ...vocabAndMerges('qwen2'),
      'tokenizer_config.json': { tokenizer_class: 'Qwen2Tokenizer', added_tokens_decoder: decoder },
    });
    expectGolden(qwen2, 'qwen2');
    expect(qwen2.isSpecial(added[0]!.id)).toBe(true);
    expectGolden(
      await tokenizerOf({
        ...vocabAndMerges('gpt-2'),
        'tokenizer_config.json': { tokenizer_class: 'GPT2TokenizerFast' },
      }),
      'gpt-2',
    );
  });

  it.each<[string, Record<string, unknown>, RegExp]>([
    [
      'another class',
      { ...vocabAndMerges('gpt-2'), 'tokenizer_config.json': { tokenizer_class: 'WhisperTokenizer' } },
      /"WhisperTokenizer"; expected GPT2Tokenizer or Qwen2Tokenizer, or make a tokenizer\.json with transformers/,
    ],
    ['no class', vocabAndMerges('gpt-2'), /tokenizer_class is undefined/],
    ["tiktoken's vocabulary", { 'tokenizer.model': 'IQ== 0\nIg== 1\n' }, /vocabulary of tiktoken.*save_pretrained/],
    ['half a tokenizer.model', { 'tokenizer.model': model.subarray(0, 5000) }, /malformed at byte/],
    [
      'a tokenizer.model of fields without end',
      { 'tokenizer.model': new Uint8Array(10_000_000).fill(0x08) },
      /message of more than 4195328 fields/,
    ],
    [
      'a merges.txt of lines without end',
      {
        'vocab.json': {},
        'merges.txt': '\n'.repeat(5_000_000),
        'tokenizer_config.json': { tokenizer_class: 'GPT2Tokenizer' },
      },
      /more than 4194304 lines/,
    ],
    ['an empty tokenizer.model', { 'tokenizer.model': '' }, /has no pieces/],
    ['nothing', {}, /no tokenizer\.json, no tokenizer\.model and no vocab\.json with merges\.txt/],
    ['vocab.json alone', { 'vocab.json': {} }, /no vocab\.json with merges\.txt/],
  ])('says what to do: %s', (_name, files, message) =>
    expectRejection('INVALID_TOKENIZER', tokenizerOf(files), message),
  );

  it.each<[string, number[], RegExp]>([
    ['unigrams', [0x12, 2, 0x18, 1], /type 1; only 2/],
    ['extra spaces removed', [0x12, 2, 0x18, 2], /removes extra spaces/],
    ['a table of its own', [0x12, 2, 0x18, 2, 0x1a, 5, 0x12, 1, 0, 0x20, 0], /normalizes text by a table/],
    [
      'user-defined pieces',
      [0x0a, 5, 0x0a, 1, 0x62, 0x18, 4, 0x12, 2, 0x18, 2, 0x1a, 2, 0x20, 0],
      /finds the piece "b" before it merges others/,
    ],
  ])('refuses a tokenizer.model with %s', (_name, rest, message) => {
    return expectRejection(
      'INVALID_TOKENIZER',
      tokenizerOf({ 'tokenizer.model': Uint8Array.of(0x0a, 3, 0x0a, 1, 0x61, ...rest) }),
      message,
    );
  });
});

describe('a damaged tokenizer.model', () => {
  it('gives a coded error or a tokenizer that works', async () => {
    const sound = readFileSync(path.join(vocabularyFolder('sentencepiece'), 'tokenizer.model'));
    const random = randomUniform(15);
    const below = (limit: number): number => Math.floor(random() * limit);
    for (let i = 0; i < 200; i++) {
      const model = Buffer.from(sound.subarray(0, i % 5 === 0 ? below(sound.length) : sound.length));
      // The head, where most pieces are, or the end, where their trainer's options are.
      for (let j = 0; j <= i % 6; j++)
        if (model.length > 0)
          model[i % 2 === 0 ? below(model.length) : model.length - 1 - below(Math.min(120, model.length))] = below(256);
      try {
        const tokenizer = await loadTokenizer({ kind: 'sentencepiece', model, config: {}, generationConfig: {} });
        tokenizer.decode(tokenizer.encode('Hello world, it is <s> 我'));
      } catch (error) {
        expect(error).toMatchObject({ name: 'CqilError', code: 'INVALID_TOKENIZER' });
      }
    }
  });
});

describe('tokens that tokenizer.json lacks', () => {
  it('come from added_tokens_decoder, added_tokens.json and special_tokens_map.json', async () => {
    const tokenizer = await tokenizerOf({
      'tokenizer.json': TINY_JSON,
      'tokenizer_config.json': {
        added_tokens_decoder: {
          5: { content: '<end>', special: false },
          6: { content: '<one>', special: true },
          7: { content: '<two>', lstrip: true },
        },
      },
      'added_tokens.json': { '<three>': 8, '<pad>': 9 },
      'special_tokens_map.json': { eos_token: { content: '<end>' }, pad_token: '<pad>' },
    });
    expect(tokenizer.encode('a<one>b <two>c<three><pad><end>').map((id) => tokenizer.idToToken(id))).toEqual([
      'a',
      '<one>',
      'b',
      '<two>',
      'c',
      '<three>',
      '<pad>',
      '<end>',
    ]);
    expect([5, 6, 7, 8, 9].map((id) => tokenizer.isSpecial(id))).toEqual([true, true, false, false, true]);
    expect(tokenizer.eosTokenIds).toEqual([5]);
  });

  it('are pieces, too, that the configuration names', async () => {
    const tokenizer = await tokenizerOf({
      'tokenizer.json': { ...TINY_JSON, model: { ...TINY_JSON.model, vocab: { ...TINY_JSON.model.vocab, '<s>': 6 } } },
      'tokenizer_config.json': { bos_token: '<s>', eos_token: '<end>' },
    });
    expect(tokenizer.encode('a<s>b', { addSpecialTokens: false })).toEqual([0, 6, 1]);
    expect(tokenizer.isSpecial(6)).toBe(true);
  });

  it('are refused where they are none', () => {
    return expectRejection(
      'INVALID_TOKENIZER',
      tokenizerOf({ 'tokenizer.json': TINY_JSON, 'added_tokens.json': { '<x>': 'six' } }),
      /"<x>".*expected content and an id/,
    );
  });
});

describe('BOS before a text', () => {
  const ids = async (config: object, parts: object = {}): Promise<number[]> => {
    const tokenizer = await tokenizerOf({
      'tokenizer.json': { ...TINY_JSON, ...parts },
      'tokenizer_config.json': { bos_token: '<end>', ...config },
    });
    return tokenizer.encode('a');
  };

  it("is there by the tokenizer's class when nothing else says so", async () => {
    for (const tokenizer_class of [
      'LlamaTokenizer',
      'LlamaTokenizerFast',
      'CodeLlamaTokenizerFast',
      'GemmaTokenizer',
    ]) {
      expect(await ids({ tokenizer_class })).toEqual([5, 0]);
      expect(await ids({ tokenizer_class, add_bos_token: false })).toEqual([0]);
    }
    expect(await ids({ tokenizer_class: 'LlamaTokenizerFast' }, { post_processor: { type: 'ByteLevel' } })).toEqual([
      5, 0,
    ]);
    expect(await ids({ tokenizer_class: 'PreTrainedTokenizerFast' })).toEqual([0]);
  });

  it("is not there where the post-processor's template has none", async () => {
    const post_processor = {
      type: 'TemplateProcessing',
      single: [{ Sequence: { id: 'A', type_id: 0 } }],
      special_tokens: {},
    };
    expect(await ids({ tokenizer_class: 'LlamaTokenizerFast' }, { post_processor })).toEqual([0]);
  });
});
