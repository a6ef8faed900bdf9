import { PIECES_AT_ONCE } from './parts.js';
import { CHARACTERS_AT_ONCE } from './patterns/pattern.js';
import { isHighSurrogate, isLowSurrogate } from './surrogates.js';
import type { BpeModel } from './tokenizer_json.js';
import { WordMerger } from './word_merger.js';

// Words of up to this many code units are encoded whole and remembered; longer ones are first cut at places that no
// piece can span.
const LONG_WORD = 64;
const REMEMBERED_WORDS = 10_000;

/** Facts about all pieces of a vocabulary, for encoding long words. */
interface Spelling {
  /** Every two UTF-16 code units that stand side by side in some piece. */
  neighbours: ReadonlySet<number>;
  /** Code units of the longest piece. */
  longest: number;
}

/**
 * Byte-pair encoding of single words.
 * A long word is cut between two characters that no piece of the vocabulary holds side by side. No merge can span such
 * a place, so the ids stay the same; the stretches in between often occur again, and are remembered.
 */
export class BpeEncoder {
  /** The token for symbols that the vocabulary lacks. */
  readonly unknownId: number | undefined;
  /** Whether characters that the vocabulary lacks stand for nothing. */
  private readonly dropsUnknown: boolean;
  private readonly byteIds: ReadonlyArray<number | undefined>;
  /** The ids of short words and stretches that were encoded before. */
  private readonly remembered = new Map<string, readonly number[]>();
  private spelling: Spelling | undefined;

  constructor(private readonly model: BpeModel) {
    this.unknownId = model.unk_token === null ? undefined : model.vocab.get(model.unk_token);
    this.dropsUnknown = this.unknownId === undefined;
    this.byteIds = Array.from({ length: 256 }, (_, byte) => model.vocab.get(bytePiece(byte)));
  }

  /** Pieces of the vocabulary and their ids. */
  get ids(): ReadonlyMap<string, number> {
    return this.model.vocab;
  }

  /** Appends a word's ids, with pauses. */
  *encode(word: string, ids: number[]): Generator<void> {
    const whole = this.mayBeWhole(word) ? this.ids.get(word) : undefined;
    const wordStart = ids.length;
    if (whole !== undefined) ids.push(whole);
    else if (word.length <= LONG_WORD) this.appendShort(word, ids, wordStart);
    else yield* this.encodeLong(word, ids);
    yield;
  }

  private mayBeWhole(word: string): boolean {
    const { ignore_merges: whole } = this.model;
    return typeof whole === 'boolean' ? whole : whole.test(word);
  }

  private *encodeLong(word: string, ids: number[]): Generator<void> {
    const { neighbours, longest } = (this.spelling ??= yield* spellingOf(this.ids.keys()));
    const wordStart = ids.length;
    let spelled = word;
    if (this.dropsUnknown) {
      const parts: string[] = [];
      for (let start = 0; start < word.length;) {
        let end = Math.min(word.length, start + CHARACTERS_AT_ONCE);
        if (isHighSurrogate(word.charCodeAt(end - 1))) end = Math.min(word.length, end + 1);
        parts.push(this.withoutUnknown(word.slice(start, end)));
        start = end;
        yield;
      }
      spelled = parts.join('');
    }
    for (const stretch of stretchesOf(spelled, neighbours)) {
      if (stretch === undefined) yield;
      else if (stretch.length <= LONG_WORD) {
        this.appendShort(stretch, ids, wordStart);
        yield;
      } else {
        const merger = new WordMerger(stretch, this.model.mergeRank, longest);
        while (!merger.advance()) yield;
        let count = 0;
        for (let start = 0; start < stretch.length; start = merger.next[start]!) {
          this.append(stretch.slice(start, merger.next[start]), ids, wordStart);
          if (++count % PIECES_AT_ONCE === 0) yield;
        }
      }
    }
  }

  private appendShort(text: string, ids: number[], wordStart: number): void {
    let own = this.remembered.get(text);
    if (!own) {
      own = this.merged(text);
      if (this.remembered.size >= REMEMBERED_WORDS) this.remembered.clear();
      this.remembered.set(copied(text), own);
    }
    for (const id of own) this.appendId(id, ids, wordStart);
  }

  private merged(whole: string): number[] {
    const ids: number[] = [];
    const text = this.dropsUnknown ? this.withoutUnknown(whole) : whole;
    const merger = new WordMerger(text, this.model.mergeRank);
    while (!merger.advance());
    for (let start = 0; start < text.length; start = merger.next[start]!)
      this.append(text.slice(start, merger.next[start]), ids, 0);
    return ids;
  }

  /**
   * The text without the characters that stand for no token. Like the reference library, this drops them before
   * anything merges, so what stood on both sides of one may merge.
   */
  private withoutUnknown(text: string): string {
    let kept = '';
    for (const character of text) if (this.ids.has(character) || this.bytesOf(character)) kept += character;
    return kept;
  }

  /** The UTF-8 bytes of a symbol, if the vocabulary has a piece for each. */
  private bytesOf(symbol: string): Buffer | undefined {
    const bytes = this.model.byte_fallback ? Buffer.from(symbol, 'utf8') : undefined;
    return bytes?.every((byte) => this.byteIds[byte] !== undefined) ? bytes : undefined;
  }

  /**
   * Appends the ids of a symbol that merges no further: its piece, else its bytes, else the unknown token, else
   * nothing.
   */
  private append(symbol: string, ids: number[], wordStart: number): void {
    const id = this.ids.get(symbol);
    if (id !== undefined) {
      this.appendId(id, ids, wordStart);
      return;
    }
    const bytes = this.bytesOf(symbol);
    if (bytes) for (const byte of bytes) ids.push(this.byteIds[byte]!);
    else if (this.unknownId !== undefined) this.appendId(this.unknownId, ids, wordStart);
  }

  private appendId(id: number, ids: number[], wordStart: number): void {
    const isFused =
      id === this.unknownId && this.model.fuse_unk && ids.length > wordStart && ids[ids.length - 1] === id;
    if (!isFused) ids.push(id);
  }
}

/** A copy of a string that was cut out of a text: without it, the engine would keep the whole text in memory. */
function copied(text: string): string {
  return Buffer.from(text, 'utf16le').toString('utf16le');
}

/** SentencePiece's name of the piece for a single byte. */
function bytePiece(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
}

/** A long word's stretches; undefined marks a place to pause at. */
function* stretchesOf(word: string, neighbours: ReadonlySet<number>): Generator<string | undefined> {
  let start = 0;
  for (let i = 1; i < word.length; i++) {
    if (i % CHARACTERS_AT_ONCE === 0) yield undefined;
    const next = word.charCodeAt(i);
    if (isLowSurrogate(next) || neighbours.has(pair(word.charCodeAt(i - 1), next))) continue;
    yield word.slice(start, i);
    start = i;
  }
  yield word.slice(start);
}

function* spellingOf(pieces: Iterable<string>): Generator<void, Spelling> {
  const neighbours = new Set<number>();
  let longest = 0;
  let count = 0;
  for (const piece of pieces) {
    longest = Math.max(longest, piece.length);
    for (let i = 1; i < piece.length; i++) neighbours.add(pair(piece.charCodeAt(i - 1), piece.charCodeAt(i)));
    if (++count % PIECES_AT_ONCE === 0) yield;
  }
  return { neighbours, longest };
}

function pair(left: number, right: number): number {
  return (left << 16) | right;
}
