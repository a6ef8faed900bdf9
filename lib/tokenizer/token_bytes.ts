import { fromByteLevel } from './byte_level.js';
import { invalidTokenizer, isObject, quote } from './invalid.js';
import { flattenSequence, type Component } from './tokenizer_json.js';

/** How pieces become bytes of text. */
export interface PieceDecoder {
  /** The bytes a piece of the vocabulary stands for; `first`: it is the first of a text. */
  bytes(piece: string, first?: boolean): Uint8Array;
  /** The bytes an added token stands for, such as a run of spaces. */
  addedBytes(content: string, first?: boolean): Uint8Array;
  /** Spaces dropped at the very start of decoded text, which encoding had put there. */
  leadingSpaces: number;
}

/** Bounds on the text of one piece: real pieces are words, and one character replaces another. */
const MAX_CONTENT = 64;
const MAX_PIECE_TEXT = 1 << 16;

const BYTE_PIECE = /^<0x([0-9A-Fa-f]{2})>$/;

/**
 * The decoder of a tokenizer.json, as a map from single pieces to bytes. Only decoders that are such a map are known:
 * byte-level, and SentencePiece's (spaces written as another character, byte fallback, a leading space dropped).
 * Throws INVALID_TOKENIZER for others.
 */
export function createPieceDecoder(config: Component | null): PieceDecoder {
  if (config === null)
    throw invalidTokenizer('The tokenizer has no decoder; expected ByteLevel, Metaspace or a Sequence.');
  const edits: Edit[] = [];
  let fused = false;
  let byteLevel = false;
  let byteFallback = false;
  let leadingSpaces = 0;

  for (const part of flattenSequence(config, 'decoders')) {
    switch (part.type) {
      case 'ByteLevel':
        byteLevel = true;
        break;
      case 'ByteFallback':
        byteFallback = true;
        break;
      case 'Fuse':
        fused = true;
        break;
      case 'Replace':
        edits.push(replacing(...parseReplace(part)));
        break;
      case 'Strip':
        if (part.content !== ' ' || !isSmallCount(part.start) || (part.stop ?? 0) !== 0) {
          throw invalidTokenizer(`The decoder strips ${quote(part)}; expected spaces, at the start only.`);
        }
        // The pieces of a text are one only once they are fused.
        if (fused) leadingSpaces += part.start;
        else edits.push(stripping(part.start));
        break;
      case 'Metaspace': {
        const from = part.replacement ?? '▁';
        if (typeof from !== 'string' || from === '')
          throw invalidTokenizer(`The decoder replaces ${quote(from)}; expected a character.`);
        if (fused) throw invalidTokenizer('The decoder has Metaspace after Fuse; expected it before.');
        const scheme = part.prepend_scheme ?? (part.add_prefix_space === false ? 'never' : 'always');
        const [first, others] = [replacing(from, scheme === 'never' ? ' ' : ''), replacing(from, ' ')];
        edits.push((text, isFirst) => (isFirst ? first : others)(text));
        break;
      }
      default:
        throw invalidTokenizer(
          `The decoder is of type ${quote(part.type)}; expected ByteLevel, Metaspace, Replace, ByteFallback, Fuse ` +
            'or Strip.',
        );
    }
  }
  const bytes = byteLevel ? fromByteLevel : spelledOut(edits, byteFallback);
  // What is not spelled in bytes is replaced in added tokens, too.
  return { bytes, addedBytes: byteLevel ? (content) => Buffer.from(content, 'utf8') : bytes, leadingSpaces };
}

/** What a decoder makes of the text of a piece. */
type Edit = (text: string, first?: boolean) => string;

function replacing(from: string, to: string): Edit {
  return (text) => text.replaceAll(from, to);
}

/** Drops this many spaces at the start of each piece. */
function stripping(count: number): Edit {
  const spaces = new RegExp(`^ {0,${count}}`);
  return (text) => text.replace(spaces, '');
}

function spelledOut(edits: readonly Edit[], byteFallback: boolean) {
  return (piece: string, first = false): Uint8Array => {
    let text = piece;
    for (const edit of edits) {
      text = edit(text, first);
      if (text.length > MAX_PIECE_TEXT) {
        throw invalidTokenizer(
          `The decoder makes more than ${MAX_PIECE_TEXT} characters of the piece ${quote(piece)}; expected a word.`,
        );
      }
    }
    const byte = byteFallback ? BYTE_PIECE.exec(text) : null;
    return byte ? Uint8Array.of(Number.parseInt(byte[1]!, 16)) : Buffer.from(text, 'utf8');
  };
}

function parseReplace(part: Component): [string, string] {
  const from = isObject(part.pattern) ? part.pattern.String : undefined;
  if (typeof from !== 'string' || from === '' || typeof part.content !== 'string') {
    throw invalidTokenizer(`The decoder replaces ${quote(part)}; expected a pattern String and a content.`);
  }
  if (part.content.length > MAX_CONTENT)
    throw invalidTokenizer(
      `The decoder puts ${part.content.length} characters for one; at most ${MAX_CONTENT} are expected.`,
    );
  // Doubled, a dollar sign stands for itself to replaceAll.
  return [from, part.content.replaceAll('$', '$$$$')];
}

function isSmallCount(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 16;
}
