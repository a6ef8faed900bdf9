import { invalidTokenizer } from './invalid.js';
import { library, type LibraryBpe } from './library.js';
import type { TokenizerJson } from './tokenizer_json.js';

/** Turns raw text into the text that the vocabulary was learned on. */
export type Normalizer = (text: string) => string;

// Words up to here are encoded whole, which the library remembers; longer ones are first cut where no piece could span.
const LONG_WORD = 64;

/**
 * Byte-pair encoding of single words by the library's model.
 * On long words the library slows down with every character, so these are cut between two characters that no piece of
 * the vocabulary holds side by side: no merge can span such a place, so the ids stay the same.
 */
export class BpeEncoder {
  readonly normalize: Normalizer;
  private readonly model: LibraryBpe;
  private readonly unknownId: number | undefined;
  private neighbours: Set<number> | undefined;

  /** Throws INVALID_TOKENIZER. */
  constructor(private readonly json: TokenizerJson) {
    const { normalizer, model } = build(json);
    this.model = model;
    const { vocab, mergeRank, unk_token: unknown } = json.model;
    this.model.tokens_to_ids = vocab;
    this.model.bpe_ranks = { get: (pair) => mergeRank(...(JSON.parse(pair) as [string, string])) };
    this.unknownId = unknown === null ? undefined : vocab.get(unknown);
    this.normalize = normalizer ?? ((text) => text);
  }

  /** Pieces of the vocabulary and their ids. */
  get ids(): ReadonlyMap<string, number> {
    return this.model.tokens_to_ids;
  }

  /** Appends a word's ids, yielding after every stretch of it. */
  *encode(word: string, ids: number[]): Generator<void> {
    const { fuse_unk: fusesUnknown } = this.json.model;
    let afterUnknown = false;
    for (const stretch of this.stretches(word)) {
      for (const piece of this.model.encode([stretch])) {
        const id = this.ids.get(piece);
        if (id === undefined) continue;
        const isUnknown = id === this.unknownId;
        if (!(isUnknown && afterUnknown && fusesUnknown)) ids.push(id);
        afterUnknown = isUnknown;
      }
      yield;
    }
  }

  private *stretches(word: string): Generator<string> {
    const takenWhole = this.json.model.ignore_merges && this.ids.has(word);
    if (word.length <= LONG_WORD || takenWhole) {
      yield word;
      return;
    }
    this.neighbours ??= neighbours(this.ids.keys());
    let start = 0;
    for (let i = 1; i < word.length; i++) {
      const next = word.charCodeAt(i);
      if (isLowSurrogate(next) || this.neighbours.has(pair(word.charCodeAt(i - 1), next))) continue;
      yield word.slice(start, i);
      start = i;
    }
    yield word.slice(start);
  }
}

/** Without the vocabulary and the merges, of which the library would make tables of its own, in a second for 128,000 pieces. */
function build({ normalizer, model }: TokenizerJson) {
  const components = { added_tokens: [], normalizer, pre_tokenizer: null, post_processor: null, decoder: null } as const;
  try {
    return new (library().Tokenizer)({ ...components, model: { ...model, vocab: {}, merges: [] } }, {});
  } catch (cause) {
    throw invalidTokenizer(`The tokenizer cannot be built: ${(cause as Error).message}.`, cause);
  }
}

/** Every two UTF-16 code units that stand side by side in some piece. */
function neighbours(pieces: Iterable<string>): Set<number> {
  const pairs = new Set<number>();
  for (const piece of pieces) {
    for (let i = 1; i < piece.length; i++) pairs.add(pair(piece.charCodeAt(i - 1), piece.charCodeAt(i)));
  }
  return pairs;
}

function pair(left: number, right: number): number {
  return (left << 16) | right;
}

function isLowSurrogate(unit: number): boolean {
  return unit >= 0xdc00 && unit <= 0xdfff;
}
