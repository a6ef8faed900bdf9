import { toByteLevel } from './byte_level.js';
import { invalidTokenizer, isObject, quote } from './invalid.js';
import { CHARACTERS_AT_ONCE, createPattern } from './patterns/pattern.js';
import { inNormalForm, type NormalForm } from './normal_form.js';
import { isHighSurrogate } from './surrogates.js';
import { flattenSequence, type Component } from './tokenizer_json.js';

/**
 * Turns raw text into the text that the vocabulary was learned on, with pauses. Nothing is put before a text that
 * `continues` another.
 */
export type Normalizer = (text: string, continues?: boolean) => Generator<void, string>;

/** A text may grow to this many times its length, plus SMALL_TEXT characters; normalizers in use at most double it. */
const MAX_GROWTH = 64;
const SMALL_TEXT = 1 << 16;

/** The normalizer of a tokenizer.json. Throws INVALID_TOKENIZER for unknown types. */
export function createNormalizer(config: Component | null): Normalizer {
  const parts = config === null ? [] : flattenSequence(config, 'normalizers');
  const edits = parts.map(editOf);
  const continuing = edits.filter((_, index) => parts[index]!.type !== 'Prepend');
  return function* (text, continues = false) {
    const limit = text.length * MAX_GROWTH + SMALL_TEXT;
    let normalized = text;
    for (const edit of continues ? continuing : edits) normalized = yield* edit(normalized, limit);
    return normalized;
  };
}

/** `limit`: the length, in UTF-16 code units, beyond which INVALID_TOKENIZER is thrown. */
type Edit = (text: string, limit: number) => Generator<void, string>;

function editOf(config: Component): Edit {
  const { type, prepend, pattern, content } = config;
  const isReplace = type === 'Replace' && isObject(pattern) && typeof content === 'string';
  if (type === 'NFC' || type === 'NFD' || type === 'NFKC' || type === 'NFKD')
    return (text) => inNormalForm(text, type as NormalForm);
  if (type === 'Prepend' && typeof prepend === 'string') return prepending(prepend);
  if (isReplace) return replacing(pattern, content);
  if (type === 'Strip') return stripping(config.strip_left !== false, config.strip_right !== false);
  const change = typeof type === 'string' && Object.hasOwn(CHANGES, type) ? CHANGES[type] : undefined;
  if (change) return piecewise(change);
  throw invalidTokenizer(
    `A normalizer is ${quote(config)}; expected Prepend, Replace, Strip, StripAccents, Lowercase, Nmt, ByteLevel, ` +
      'NFC, NFD, NFKC or NFKD.',
  );
}

/** Normalizers that change each character by itself. */
const CHANGES: Record<string, (text: string) => string> = {
  // Character by character, as the reference library does: a sigma at the end of a word becomes σ, too.
  Lowercase: (text) => Array.from(text, (character) => character.toLowerCase()).join(''),
  StripAccents: (text) => text.replace(/\p{M}/gu, ''),
  Nmt: (text) => text.replace(NMT_DROPPED, '').replace(NMT_SPACES, ' '),
  ByteLevel: toByteLevel,
};

// SentencePiece's rules for translation: control characters go, further spaces become spaces.
// eslint-disable-next-line no-control-regex
const NMT_DROPPED = /[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]/g;
const NMT_SPACES = /[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]/g;

function piecewise(change: (text: string) => string): Edit {
  return function* (text, limit) {
    const parts: string[] = [];
    let length = 0;
    for (let start = 0; start < text.length;) {
      let end = Math.min(text.length, start + CHARACTERS_AT_ONCE);
      // A surrogate pair must not be cut in half.
      if (end < text.length && isHighSurrogate(text.charCodeAt(end - 1))) end--;
      const part = change(text.slice(start, end));
      checkLength((length += part.length), limit);
      parts.push(part);
      start = end;
      if (start < text.length) yield;
    }
    return parts.join('');
  };
}

function stripping(left: boolean, right: boolean): Edit {
  // eslint-disable-next-line require-yield
  return function* (text) {
    let [start, end] = [0, text.length];
    while (left && start < end && WHITE_SPACE.test(text[start]!)) start++;
    while (right && end > start && WHITE_SPACE.test(text[end - 1]!)) end--;
    return text.slice(start, end);
  };
}

/** Unlike `trim`, this knows U+0085 and leaves U+FEFF. */
const WHITE_SPACE = /\p{White_Space}/u;

function prepending(prepend: string): Edit {
  // eslint-disable-next-line require-yield
  return function* (text, limit) {
    checkLength(text.length + prepend.length, limit);
    return text === '' ? '' : prepend + text;
  };
}

function replacing(config: unknown, content: string): Edit {
  const pattern = createPattern(config, 'A normalizer');
  return function* (text, limit) {
    const parts: string[] = [];
    let length = 0;
    let last = 0;
    for (const match of pattern(text)) {
      if (match === undefined) {
        yield;
        continue;
      }
      parts.push(text.slice(last, match[0]), content);
      length += match[0] - last + content.length;
      last = match[1];
      checkLength(length, limit);
      if (parts.length % CHARACTERS_AT_ONCE === 0) yield;
    }
    return last === 0 && parts.length === 0 ? text : parts.join('') + text.slice(last);
  };
}

function checkLength(length: number, limit: number): void {
  if (length > limit)
    throw invalidTokenizer(
      `The normalizer makes a text more than ${MAX_GROWTH} times as long; expected one that changes characters.`,
    );
}
