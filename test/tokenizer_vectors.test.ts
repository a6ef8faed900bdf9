import { readFileSync } from 'node:fs';
import { beforeAll, expect, it } from 'vitest';
import type { TokenizerSource } from '../lib/checkpoint/types.js';
import { loadTokenizer, type Tokenizer } from '../lib/tokenizer/index.js';
import { describeShared, sharedData } from './support/shared_data.js';
import { folderSource, ggufSource, gpt2Source, llama3Source, qwen2Source } from './support/tokenizer_sources.js';

// A vocabulary-only GGUF file of Phi-3 is not among the shared data; its vectors are LLaMA-2's.
const CASES: Array<[name: string, vectors: string, source: () => TokenizerSource | Promise<TokenizerSource>]> = [
  ['LLaMA-2, GGUF', 'llama-spm', () => ggufSource('tokenizers', 'llamacpp-vocab', 'ggml-vocab-llama-spm.gguf')],
  ['LLaMA-2, tokenizer.json', 'llama-spm', () => folderSource('tokenizers', 'llama-1-2')],
  ['LLaMA-3, byte-level files', 'llama-bpe', llama3Source],
  ['Qwen2, byte-level files', 'qwen2', qwen2Source],
  ['GPT-2, GGUF', 'gpt-2', () => ggufSource('tokenizers', 'llamacpp-vocab', 'ggml-vocab-gpt-2.gguf')],
  ['GPT-2, byte-level files', 'gpt-2', gpt2Source],
];

/** llama.cpp's test vectors: texts, and the ids llama.cpp gives them without BOS. The last text is empty. */
function readVectors(name: string): Array<{ text: string; ids: number[] }> {
  const file = sharedData('tokenizers', 'llamacpp-vocab', `ggml-vocab-${name}.gguf`);
  const texts = readFileSync(`${file}.inp`, 'utf8').split(/\n__ggml_vocab_test__\n/);
  const lines = readFileSync(`${file}.out`, 'utf8').split('\n');
  return texts.map((text, index) => ({ text, ids: lines[index]!.split(' ').filter(Boolean).map(Number) }));
}

for (const [name, vectors, source] of CASES) {
  describeShared(`llama.cpp's vectors: ${name}`, () => {
    let tokenizer: Tokenizer;
    beforeAll(async () => {
      tokenizer = await loadTokenizer(await source());
    });

    it('encodes and decodes all 47', () => {
      const all = readVectors(vectors);
      expect(all).toHaveLength(47);
      for (const { text, ids } of all) {
        expect(tokenizer.encode(text, { addSpecialTokens: false }), JSON.stringify(text)).toEqual(ids);
        expect(tokenizer.decode(ids)).toBe(text);
      }
    });
  });
}
