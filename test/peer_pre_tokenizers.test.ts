import path from 'node:path';
import { expect, it } from 'vitest';
import type { GgufValue } from '../lib/checkpoint/types.js';
import { PRE_TOKENIZER_NAMES, preTokenizerRule } from '../lib/tokenizer/gguf_pre_tokenizers.js';
import { loadTokenizer } from '../lib/tokenizer/index.js';
import { array, bool, text, u32, type GgufEntry } from '../tools/gguf/gguf_writer.mjs';
import { askPeer, peerMissing } from './reference/peer.js';
import { ggufStrings } from './support/gguf_strings.js';
import { writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';
import { describeUnless } from './support/unless.js';
import { vocabularyAsGguf, vocabularySource, VOCABULARY_TEXTS } from './support/vocabularies.js';

const folder = tempFolder();

/**
 * Texts for which llama.cpp cuts by another rule than the models' own tokenizer.json, which is followed here: it leaves
 * marks out of words, takes digits in one run, or cuts before the spaces in front of digits.
 */
const OTHERWISE: Array<[names: string[], texts: RegExp]> = [
  [['tekken', 'gpt-4o', 'llama4', 'kanana2', 'talkie', 'minimax-m2', 'kimi-k2'], /\p{M}/u],
  [['deepseek-llm'], /\p{N}/u],
  [['tiny_aya', 'cohere2moe'], /\p{N}/u],
];

/** A vocabulary under a name: byte-level, or text where the name says so, with line breaks that only it joins. */
function vocabulary(name: string): Map<string, GgufValue> {
  if (!preTokenizerRule(name).piecesAreText) return new Map(vocabularyAsGguf('llama-3', name).metadata);
  const { model } = vocabularySource('sentencepiece').json as { model: { merges: Array<string | string[]> } };
  const metadata = new Map(vocabularyAsGguf('sentencepiece').metadata);
  const merges = model.merges.map((merge) => [merge].flat().join(' '));
  metadata.delete('tokenizer.ggml.scores');
  const pieces = [...(metadata.get('tokenizer.ggml.tokens') as Iterable<string>), '\n', '\n\n', '\n\n\n'];
  const types = [...(metadata.get('tokenizer.ggml.token_type') as Int32Array), 1, 1, 1];
  return new Map([
    ...metadata,
    ['tokenizer.ggml.model', 'gpt2'],
    ['tokenizer.ggml.pre', name],
    ['tokenizer.ggml.tokens', ggufStrings(pieces)],
    ['tokenizer.ggml.token_type', Int32Array.from(types)],
    ['tokenizer.ggml.merges', ggufStrings(merges)],
  ]);
}

function entryOf(value: GgufValue): GgufEntry {
  if (typeof value === 'string') return text(value);
  if (typeof value === 'number') return u32(value);
  if (typeof value === 'boolean') return bool(value);
  if (value instanceof Int32Array) return array('i32', [...value]);
  if (value instanceof Float32Array) return array('f32', [...value]);
  return array('string', [...(value as Iterable<string>)]);
}

describeUnless(peerMissing(), "the ids of llama.cpp for SentencePiece's vocabularies", () => {
  it.each(['sentencepiece', 'gemma', 'phi3'] as const)('%s', async (family) => {
    const { metadata } = vocabularyAsGguf(family);
    const file = path.join(folder, `${family}.gguf`);
    const { 'general.architecture': _, ...entries } = Object.fromEntries(metadata);
    writeRandomModel(file, {
      format: 'gguf',
      shape: { vocabSize: (metadata.get('tokenizer.ggml.tokens') as { length: number }).length },
      metadata: Object.fromEntries(Object.entries(entries).map(([key, value]) => [key, entryOf(value)])),
    });
    const [answer] = await askPeer([{ model: file, contextLength: 64, texts: VOCABULARY_TEXTS }]);
    const tokenizer = await loadTokenizer({ kind: 'gguf', metadata });
    for (const [i, input] of VOCABULARY_TEXTS.entries()) {
      const ids = tokenizer.encode(input, { addSpecialTokens: false, parseSpecialTokens: false });
      expect(ids, JSON.stringify(input)).toEqual(answer!.tokenized[i]);
    }
  });
});

describeUnless(peerMissing(), "the ids of llama.cpp under each of its pre-tokenizers' names", () => {
  it(`for ${PRE_TOKENIZER_NAMES.length} names and ${VOCABULARY_TEXTS.length} texts`, async () => {
    const files = PRE_TOKENIZER_NAMES.map((name, index) => {
      const metadata = vocabulary(name);
      const file = path.join(folder, `${index}.gguf`);
      const vocabSize = (metadata.get('tokenizer.ggml.tokens') as { length: number }).length;
      writeRandomModel(file, {
        format: 'gguf',
        shape: { vocabSize },
        metadata: Object.fromEntries([...metadata].map(([key, value]) => [key, entryOf(value)])),
      });
      return { name, file, metadata };
    });
    const answers = await askPeer(
      files.map(({ file }) => ({ model: file, contextLength: 64, texts: VOCABULARY_TEXTS })),
    );
    for (const [index, { name, metadata }] of files.entries()) {
      const tokenizer = await loadTokenizer({ kind: 'gguf', metadata });
      const otherwise = OTHERWISE.find(([names]) => names.includes(name))?.[1];
      for (const [i, input] of VOCABULARY_TEXTS.entries()) {
        if (otherwise?.test(input)) continue;
        const ids = tokenizer.encode(input, { addSpecialTokens: false, parseSpecialTokens: false });
        expect(ids, `${name}: ${JSON.stringify(input)}`).toEqual(answers[index]!.tokenized[i]);
      }
    }
  }, 200_000);
});
