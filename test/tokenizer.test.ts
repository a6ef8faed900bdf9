import { beforeAll, describe, expect, it } from 'vitest';
import { readFileSync } from 'node:fs';
import { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers';
import type { TokenizerSource } from '../lib/checkpoint/types.js';
import { loadTokenizer, type Tokenizer } from '../lib/tokenizer/index.js';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { textBeside } from '../lib/cli/text_file.js';
import { shippedModelPath } from '../lib/model/load.js';
import { countTurns } from './support/event_loop.js';
import { expectRejection } from './support/expect_code.js';
import { randomUniform } from './support/random.js';
import { describeShared, sharedData } from './support/shared_data.js';
import {
  folderSource,
  ggufSource,
  gpt2Source,
  llama3Source,
  qwen2Source,
  readJson,
} from './support/tokenizer_sources.js';
import { randomText } from './support/tiny_tokenizer.js';
import { FAMILIES, vocabularyAsGguf, vocabularySource } from './support/vocabularies.js';

type Sources = Record<string, () => TokenizerSource | Promise<TokenizerSource>>;

/** The vocabularies of the fixtures, and the one of the model that ships. */
const OWN: Sources = {
  ...Object.fromEntries(FAMILIES.map((family) => [family, () => vocabularySource(family)])),
  'llama-3 as GGUF': () => vocabularyAsGguf('llama-3', 'llama-bpe'),
  'sentencepiece as GGUF': () => vocabularyAsGguf('sentencepiece'),
  'the one that ships, GGUF': async () => (await openCheckpoint(shippedModelPath())).readTokenizer(),
};

const REAL: Sources = {
  'LLaMA-2': () => folderSource('tokenizers', 'llama-1-2'),
  'LLaMA-2 as GGUF': () => ggufSource('tokenizers', 'llamacpp-vocab', 'ggml-vocab-llama-spm.gguf'),
  'LLaMA-3': llama3Source,
  Qwen2: qwen2Source,
  'GPT-2': gpt2Source,
  'GPT-2 as GGUF': () => ggufSource('tokenizers', 'llamacpp-vocab', 'ggml-vocab-gpt-2.gguf'),
  stories260K: () => folderSource('models', 'stories260K', 'hf'),
  'stories260K as GGUF': () => ggufSource('models', 'stories260K', 'stories260Ktok512.gguf'),
  'babyllama-tok105': () => folderSource('models', 'babyllama-tok105', 'hf'),
  'stories-16l': () => folderSource('models', 'stories-16l'),
};

const loaded = new Map<string, Promise<{ source: TokenizerSource; tokenizer: Tokenizer }>>();

/** One of OWN or REAL, built once: the large vocabularies take half a second. */
function load(name: string): Promise<{ source: TokenizerSource; tokenizer: Tokenizer }> {
  const build = async (): Promise<{ source: TokenizerSource; tokenizer: Tokenizer }> => {
    const source = await { ...OWN, ...REAL }[name]!();
    return { source, tokenizer: await loadTokenizer(source) };
  };
  const entry = loaded.get(name) ?? build();
  loaded.set(name, entry);
  return entry;
}

const TEXTS = [
  '',
  ' ',
  '  ',
  '\n',
  '\n\n \n',
  '\t\r\n',
  'Once upon a time',
  ' leading',
  'trailing ',
  '  two   three    four  ',
  'a\u0085b\u00a0c\u3000d',
  '👩‍👩‍👧‍👦 🏳️‍🌈 😀😀',
  '我想在apple工作1314151天～',
  'Cửa Việt',
  'e\u0301 n\u0303 각',
  '\ufeffBOM at the start, and \ufeff within',
  'ᄀᄀᄀ각ᆨᆨ',
  '▁ is a character, ▁▁ too',
  'Ġthe Ċ',
  '<0x0A> <0x',
  '\0\u0001\u007f',
  "don't DON'T we'll",
  '{"json": [1, 2, 33, 444, 5555]}',
  'x'.repeat(300),
];

for (const name of Object.keys({ ...OWN, ...REAL })) {
  (name in OWN ? describe : describeShared)(`tokenizer: ${name}`, () => {
    let tokenizer: Tokenizer;
    let source: TokenizerSource;
    beforeAll(async () => {
      ({ tokenizer, source } = await load(name));
    });

    // babyllama has no byte fallback: what its 105 pieces cannot spell is lost.
    const spellsEverything = name !== 'babyllama-tok105';
    if (spellsEverything)
      it('gives back every text', () => {
        // Qwen2 reads text in Unicode's composed form (NFC); SentencePiece writes a space as ▁, so cannot tell them
        // apart.
        const isSentencePiece = tokenizer.tokenToId('▁the') !== undefined;
        const expected = (text: string): string =>
          /^qwen2$/i.test(name) ? text.normalize('NFC') : isSentencePiece ? text.replaceAll('▁', ' ') : text;
        for (const text of TEXTS) expect(tokenizer.decode(tokenizer.encode(text))).toBe(expected(text));
      });

    if (!name.endsWith('GGUF'))
      it('encodes as the library does in one go, long words and control tokens included', () => {
        if (source.kind !== 'huggingface') throw new Error('not a Hugging Face tokenizer');
        const library = new LibraryTokenizer(source.json as object, (source.config ?? {}) as object);
        const random = randomUniform(7);
        const specials = ['</s>', '<|endoftext|>', '<|eot_id|>', '<|im_end|>', '<｜end▁of▁sentence｜>'].filter(
          (token) => tokenizer.tokenToId(token) !== undefined,
        );
        for (let i = 0; i < 60; i++) {
          const text = randomText(random, 400, specials);
          expect(tokenizer.encode(text, { addSpecialTokens: false })).toEqual(
            library.encode(text, { add_special_tokens: false }).ids,
          );
        }
      });

    it('takes control tokens in the text as text when told to', () => {
      const end = tokenizer.idToToken(tokenizer.eosTokenIds[0]!)!;
      const text = `a${end}b ${end}`;
      const ids = tokenizer.encode(text, { parseSpecialTokens: false, addSpecialTokens: false });
      expect(ids.some((id) => tokenizer.isSpecial(id))).toBe(false);
      expect(tokenizer.decode(ids)).toBe(text);
    });

    it('gives the bytes of single ids', () => {
      const ids = Array.from({ length: Math.ceil(tokenizer.vocabSize / 97) }, (_, index) => index * 97);
      const spelled = ids.map((id) => Buffer.from(tokenizer.tokenBytes(id)).toString('utf8').replace(/^ /, ''));
      const decoded = ids.map((id) => tokenizer.decode([id], { skipSpecialTokens: false }).replace(/^ /, ''));
      expect(spelled).toEqual(decoded);
    });
  });
}

async function expectNoBos(names: string[]): Promise<void> {
  for (const name of names) {
    const { tokenizer } = await load(name);
    expect(tokenizer.encode('Hello')).toEqual([tokenizer.tokenToId('Hello')]);
  }
}

async function expectSlicedIds(names: string[], text: string): Promise<void> {
  for (const name of names) {
    const { tokenizer } = await load(name);
    const { result: ids, turns } = await countTurns(() => tokenizer.encodeSliced(text));
    expect(ids).toEqual(tokenizer.encode(text));
    expect(turns).toBeGreaterThan(3);
  }
}

describe('tokenizer: rules of checkpoints', () => {
  it('puts BOS where the model wants it, once', async () => {
    for (const name of ['sentencepiece', 'sentencepiece as GGUF']) {
      const { tokenizer } = await load(name);
      expect([tokenizer.bosTokenId, ...tokenizer.eosTokenIds]).toEqual([1, 2]);
      expect(tokenizer.encode('')).toEqual([1]);
      expect(tokenizer.encode('Hello')).toEqual([1, ...tokenizer.encode('Hello', { addSpecialTokens: false })]);
      expect(tokenizer.encode('<s> Hello').filter((id) => id === 1)).toHaveLength(1);
    }
    for (const name of ['llama-3', 'llama-3 as GGUF']) {
      const { tokenizer } = await load(name);
      expect(tokenizer.encode('Hello')[0]).toBe(tokenizer.tokenToId('<|begin_of_text|>'));
      expect(tokenizer.encode('<|begin_of_text|>Hello')).toEqual(tokenizer.encode('Hello'));
    }
  });

  it('adds no BOS where the model has no such rule', () => expectNoBos(['qwen2', 'gpt-2']));

  it('takes half a surrogate pair for the replacement character', async () => {
    for (const name of ['sentencepiece', 'gpt-2']) {
      const { tokenizer } = await load(name);
      expect(tokenizer.decode(tokenizer.encode('a\ud83db'))).toBe('a\ufffdb');
    }
  });

  it('encodes in slices to the same ids while the event loop runs', async () => {
    const text = readFileSync(textBeside(shippedModelPath()), 'utf8').repeat(8);
    await expectSlicedIds(['sentencepiece', 'llama-3', 'deepseek-llm'], text);
  });

  it('stops encoding when aborted', async () => {
    const { tokenizer } = await load('sentencepiece');
    const controller = new AbortController();
    const encoding = tokenizer.encodeSliced('Some words to encode. '.repeat(20_000), { signal: controller.signal });
    setImmediate(() => controller.abort());
    await expectRejection('ABORTED', encoding);
    await expectRejection('ABORTED', tokenizer.encodeSliced('text', { signal: AbortSignal.abort() }));
  });
});

describeShared('tokenizer: rules of real checkpoints', () => {
  it('puts BOS where the model wants it, once', async () => {
    for (const name of ['LLaMA-2', 'LLaMA-2 as GGUF']) {
      const { tokenizer } = await load(name);
      expect(tokenizer.bosTokenId).toBe(1);
      expect(tokenizer.eosTokenIds).toEqual([2]);
      expect(tokenizer.encode('')).toEqual([1]);
      expect(tokenizer.encode('Hello')).toEqual([1, 15043]);
      expect(tokenizer.encode('<s> Hello').filter((id) => id === 1)).toHaveLength(1);
    }
    const { tokenizer: llama3 } = await load('LLaMA-3');
    expect(llama3.encode('Hello')[0]).toBe(128000);
    expect(llama3.encode('<|begin_of_text|>Hello')).toEqual(llama3.encode('Hello'));
  });

  it('adds no BOS where the model has no such rule', () => expectNoBos(['Qwen2', 'GPT-2', 'GPT-2 as GGUF']));

  it('collects every end of generation', async () => {
    expect(new Set((await load('LLaMA-3')).tokenizer.eosTokenIds)).toEqual(new Set([128001, 128008, 128009]));
    expect(new Set((await load('Qwen2')).tokenizer.eosTokenIds)).toEqual(new Set([151643, 151645]));
  });

  it('encodes the golden texts of stories260K and babyllama, from a folder and from GGUF', async () => {
    interface Golden {
      cases: Array<{ text: string; ids: number[] }>;
      greedy: { prompt: string; prompt_ids: number[] };
    }
    const models = {
      stories260K: 'stories260K',
      'stories260K as GGUF': 'stories260K',
      'babyllama-tok105': 'babyllama-tok105',
    };
    for (const [name, model] of Object.entries(models)) {
      const { tokenizer } = await load(name);
      const golden = readJson('models', model, 'golden.json') as Golden;
      expect(tokenizer.encode(golden.greedy.prompt)).toEqual(golden.greedy.prompt_ids);
      // babyllama's are cut at its context length.
      for (const { text, ids } of golden.cases) expect(tokenizer.encode(text).slice(0, ids.length)).toEqual(ids);
    }
  });

  it('encodes stories-16l with its separator in front', async () => {
    const { tokenizer } = await load('stories-16l');
    expect(tokenizer.vocabSize).toBe(2048);
    expect([tokenizer.bosTokenId, ...tokenizer.eosTokenIds]).toEqual([0, 0]);
    const ids = tokenizer.encode('Once upon a time');
    expect(ids[0]).toBe(0);
    expect(tokenizer.decode(ids)).toBe('Once upon a time');
  });

  it('encodes in slices to the same ids while the event loop runs', async () => {
    const text = readFileSync(sharedData('corpora', 'wikitext-2', 'wiki.test.raw.txt'), 'utf8').slice(0, 200_000);
    await expectSlicedIds(['LLaMA-2', 'LLaMA-3'], text);
  });
});
