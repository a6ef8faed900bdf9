import { beforeAll, describe, expect, it } from 'vitest';
import type { TokenizerSource } from '../lib/checkpoint/types.js';
import { loadTokenizer, type Tokenizer } from '../lib/tokenizer/index.js';
import { randomUniform } from './support/random.js';
import { describeShared } from './support/shared_data.js';
import { randomText } from './support/tiny_tokenizer.js';
import { folderSource, ggufSource, gpt2Source, llama3Source, qwen2Source } from './support/tokenizer_sources.js';
import { FAMILIES, vocabularyAsGguf, vocabularySource } from './support/vocabularies.js';

type Sources = Record<string, () => TokenizerSource | Promise<TokenizerSource>>;

const OWN: Sources = {
  ...Object.fromEntries(FAMILIES.map((family) => [family, () => vocabularySource(family)])),
  'sentencepiece as GGUF': () => vocabularyAsGguf('sentencepiece'),
};

const REAL: Sources = {
  'LLaMA-2': () => folderSource('tokenizers', 'llama-1-2'),
  'LLaMA-3': llama3Source,
  Qwen2: qwen2Source,
  'GPT-2': gpt2Source,
  stories260K: () => folderSource('models', 'stories260K', 'hf'),
  'stories260K as GGUF': () => ggufSource('models', 'stories260K', 'stories260Ktok512.gguf'),
  'babyllama-tok105': () => folderSource('models', 'babyllama-tok105', 'hf'),
  'stories-16l': () => folderSource('models', 'stories-16l'),
};

for (const [name, source] of Object.entries({ ...OWN, ...REAL })) {
  (name in OWN ? describe : describeShared)(`detokenizer: ${name}`, () => {
    let tokenizer: Tokenizer;
    beforeAll(async () => {
      tokenizer = await loadTokenizer(await source());
    });

    it('gives in parts what decode gives at once, for any ids', () => {
      const random = randomUniform(1);
      const byteIds = Array.from({ length: tokenizer.vocabSize }, (_, id) => id).filter(
        (id) => tokenizer.tokenBytes(id).length === 1,
      );
      for (let i = 0; i < 200; i++) {
        const anyId = (): number => Math.floor(random() * tokenizer.vocabSize);
        const byteId = (): number => byteIds[Math.floor(random() * byteIds.length)]!;
        const ids = Array.from({ length: Math.floor(random() * 40) }, () => (random() < 0.6 ? byteId() : anyId()));
        const skipSpecialTokens = random() < 0.5;
        const detokenizer = tokenizer.detokenizer({ skipSpecialTokens });
        const parts = [...ids.map((id) => detokenizer.push(id)), detokenizer.flush()];
        expect(parts.join('')).toBe(tokenizer.decode(ids, { skipSpecialTokens }));
        // No part ends or begins inside a character.
        expect(parts.map((part) => Buffer.from(part).toString())).toEqual(parts);
      }
    });

    it('decodes the bytes of the ids as TextDecoder does', () => {
      const random = randomUniform(2);
      for (let i = 0; i < 100; i++) {
        const ids = Array.from({ length: 30 }, () => Math.floor(random() * tokenizer.vocabSize));
        const bytes = Buffer.concat(ids.map((id) => tokenizer.tokenBytes(id)));
        const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
        const decoded = tokenizer.decode(ids, { skipSpecialTokens: false });
        expect([text, text.replace(/^ /, '')]).toContain(decoded);
      }
    });

    it('never gives out part of a character', () => {
      const random = randomUniform(3);
      for (let i = 0; i < 50; i++) {
        const text = randomText(random, 100);
        const ids = tokenizer.encode(text);
        const whole = tokenizer.decode(ids);
        const detokenizer = tokenizer.detokenizer();
        let shown = '';
        for (const id of ids) {
          shown += detokenizer.push(id);
          if (!whole.startsWith(shown)) break;
        }
        expect(shown + detokenizer.flush()).toBe(whole);
      }
    });
  });
}

describe('detokenizer', () => {
  it('drops the one space that SentencePiece puts before a text, and keeps it after other text', async () => {
    const tokenizer = await loadTokenizer(vocabularySource('sentencepiece'));
    const once = tokenizer.tokenToId('▁upon')!;
    const space = tokenizer.tokenToId('▁')!;
    const run = (ids: number[], options?: { continues?: boolean }): string => {
      const detokenizer = tokenizer.detokenizer(options);
      return ids.map((id) => detokenizer.push(id)).join('') + detokenizer.flush();
    };
    expect(run([once, once])).toBe('upon upon');
    expect(run([1, once])).toBe('upon');
    expect(run([space, once])).toBe(' upon');
    expect(run([once, once], { continues: true })).toBe(' upon upon');
  });

  it('holds bytes back until they are a character, and gives up on them at the end', async () => {
    const tokenizer = await loadTokenizer(vocabularySource('sentencepiece'));
    const byte = (value: number): number => tokenizer.tokenToId(`<0x${value.toString(16).toUpperCase()}>`)!;
    const detokenizer = tokenizer.detokenizer();
    expect([0xf0, 0x9f, 0x98, 0x80].map((value) => detokenizer.push(byte(value)))).toEqual(['', '', '', '😀']);
    expect([0xef, 0xbb, 0xbf].map((value) => detokenizer.push(byte(value)))).toEqual(['', '', '\ufeff']);
    expect(detokenizer.push(byte(0xe2)) + detokenizer.flush()).toBe('\ufffd');
    // After a flush a new text begins.
    expect(detokenizer.push(tokenizer.tokenToId('▁the')!)).toBe('the');
  });
});

describe('TextDecoder', () => {
  it('gives in parts what it gives at once, as the detokenizer relies on', () => {
    const random = randomUniform(4);
    const interesting = [0x41, 0x80, 0xbf, 0xc2, 0xe0, 0xa0, 0xed, 0x9f, 0xef, 0xbb, 0xf0, 0x90, 0xf4, 0x8f, 0xff];
    for (let i = 0; i < 5000; i++) {
      const bytes = Uint8Array.from({ length: 12 }, () => interesting[Math.floor(random() * interesting.length)]!);
      const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
      let text = '';
      for (const byte of bytes) text += decoder.decode(Uint8Array.of(byte), { stream: true });
      expect(text + decoder.decode()).toBe(new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes));
    }
  });
});
