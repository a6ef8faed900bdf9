import { readFileSync } from 'node:fs';
import path from 'node:path';
import { convertToGguf } from './gguf_vocabulary.js';
import type { TokenizerSource } from '../../lib/checkpoint/types.js';

const FOLDER = path.resolve(__dirname, '../fixtures/tokenizers');

/** The project's own vocabularies (test/fixtures/README.md): a pre-tokenizer each, and SentencePiece. */
export const FAMILIES = [
  'gpt-2',
  'llama-3',
  'qwen2',
  'deepseek-llm',
  'deepseek-coder',
  'deepseek-v3',
  'sentencepiece',
  'gemma',
  'phi3',
] as const;
export type Family = (typeof FAMILIES)[number];

/** The texts that every golden has ids of. */
export const VOCABULARY_TEXTS = JSON.parse(readFileSync(path.join(FOLDER, 'texts.json'), 'utf8')) as string[];

/** What the reference library gives for the texts. */
export interface VocabularyGolden {
  /** Put before every text unless it is encoded without special tokens. */
  prefix: number[];
  /** What the ids of a text are decoded to, by its index, where that is not the text again. */
  decoded: Record<string, string>;
  /** Texts with control tokens in them. */
  specials: Array<{ text: string; ids: number[] }>;
  /** A row of ids for each text, without special tokens. */
  ids: number[][];
}

/** The folder with tokenizer.json and tokenizer_config.json of a family. */
export function vocabularyFolder(family: Family): string {
  return path.join(FOLDER, family);
}

export function vocabularyGolden(family: Family): VocabularyGolden {
  return readVocabularyFile(family, 'golden.json') as VocabularyGolden;
}

/** A family's vocabulary as a Hugging Face folder has it. */
export function vocabularySource(family: Family): TokenizerSource & { kind: 'huggingface' } {
  // Phi 3 has LLaMA's vocabulary.
  const json =
    family === 'phi3'
      ? {
          ...(readVocabularyFile('sentencepiece', 'tokenizer.json') as object),
          ...(readVocabularyFile(family, 'changes.json') as object),
        }
      : readVocabularyFile(family, 'tokenizer.json');
  return {
    kind: 'huggingface',
    json,
    config: readVocabularyFile(family, 'tokenizer_config.json'),
    generationConfig: {},
  };
}

/** A family's vocabulary as a GGUF file has it; `pre` is llama.cpp's name of its pre-tokenizer. */
export function vocabularyAsGguf(family: Family, pre: string = family): TokenizerSource & { kind: 'gguf' } {
  const { json, config } = vocabularySource(family);
  return {
    kind: 'gguf',
    metadata: convertToGguf(json as Parameters<typeof convertToGguf>[0], config as Record<string, unknown>, pre).set(
      'general.architecture',
      family === 'phi3' ? 'phi3' : 'llama',
    ),
  };
}

function readVocabularyFile(family: Family, name: string): unknown {
  return JSON.parse(readFileSync(path.join(FOLDER, family, name), 'utf8'));
}
