import type { BpeModel, Component } from './tokenizer_json.js';

// The library's own declarations import without file extensions, which a Node-style resolution cannot follow: what cqil
// uses of the library is declared here.

/** The library's byte-pair encoder. */
export interface LibraryBpe {
  tokens_to_ids: ReadonlyMap<string, number>;
  /** By `JSON.stringify([left, right])`. */
  bpe_ranks: { get(pair: string): number | undefined };
  /** The pieces of words, each word encoded by itself. */
  encode(words: string[]): string[];
}

interface LibraryTokenizer {
  normalizer: ((text: string) => string) | null;
  model: LibraryBpe;
}

interface Library {
  Tokenizer: new (
    json: {
      added_tokens: readonly [];
      normalizer: Component | null;
      pre_tokenizer: null;
      post_processor: null;
      decoder: null;
      model: Omit<BpeModel, 'vocab'> & { vocab: object; merges: [] };
    },
    config: object,
  ) => LibraryTokenizer;
  /** Translates Oniguruma's syntax to JavaScript's. */
  SplitPreTokenizer: new (config: { type: 'Split'; pattern: unknown; behavior: 'Isolated'; invert: true }) => { pattern: RegExp | null };
}

/** Loaded with the first tokenizer: a model's weights are being read by then. */
export function library(): Library {
  return require('@huggingface/tokenizers') as unknown as Library;
}
