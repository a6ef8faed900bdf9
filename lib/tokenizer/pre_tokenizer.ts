import { toByteLevel } from './byte_level.js';
import { invalidTokenizer, quote } from './invalid.js';
import { CHARACTERS_AT_ONCE, createPattern, regexPattern, stringPattern, type Pattern } from './patterns/pattern.js';
import { scriptOf } from './scripts.js';
import { isHighSurrogate } from './surrogates.js';
import { flattenSequence, type Component } from './tokenizer_json.js';

/**
 * Where a piece of text stands: at the start of the whole text, right after other text that it continues, or somewhere
 * within.
 */
export type Place = 'start' | 'continues' | 'within';

/**
 * Cuts text into the words that are encoded each by itself. Words come one at a time as they are asked for, and
 * undefined where a pause can be made before the next.
 */
export type PreTokenizer = (text: string, place: Place) => Iterable<string | undefined>;

/** How GPT-2 cuts text; the default of `ByteLevel`. */
export const GPT2_PATTERN = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

const METASPACE = '▁';
const PUNCTUATION = '[\\p{P}!-/:-@\\[-`{-~]';
/** Word characters of Rust's regular expressions, which the reference library uses here; Oniguruma has some more. */
const WORD = '\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\u200c\\u200d';

/**
 * What becomes of the matches of a pattern and of the stretches between them. With `Isolated`, each is a word by
 * itself.
 */
const BEHAVIORS = ['Isolated', 'Removed', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous'] as const;
type Behavior = (typeof BEHAVIORS)[number];

/** A stretch of text, and whether it is a match. */
type Stretch = [start: number, end: number, isMatch: boolean];

/** The pre-tokenizer of a tokenizer.json. Throws INVALID_TOKENIZER for unknown types. */
export function createPreTokenizer(config: Component | null): PreTokenizer {
  const inTurn = config === null ? [] : flattenSequence(config, 'pretokenizers').flatMap(preTokenizersOf);
  return (text, place) => run(inTurn, 0, text, place);
}

function* run(inTurn: PreTokenizer[], index: number, text: string, place: Place): Generator<string | undefined> {
  const preTokenizer = inTurn[index];
  if (preTokenizer === undefined) {
    yield text;
    return;
  }
  let here = place;
  for (const word of preTokenizer(text, place)) {
    if (word === undefined) {
      yield undefined;
      continue;
    }
    if (index + 1 === inTurn.length) yield word;
    else yield* run(inTurn, index + 1, word, here);
    here = 'within';
  }
}

function preTokenizersOf(config: Component): PreTokenizer[] {
  switch (config.type) {
    case 'Split':
      return [split(createPattern(config.pattern, 'A pre-tokenizer'), behaviorOf(config), config.invert === true)];
    case 'Digits':
      return [split(builtIn(config.individual_digits === true ? '\\p{N}' : '\\p{N}+'), 'Isolated')];
    case 'Punctuation':
      return [split(builtIn(PUNCTUATION), behaviorOf(config))];
    case 'Whitespace':
      return [split(builtIn(`[${WORD}]+|[^\\s${WORD}]+`), 'Removed', true)];
    case 'WhitespaceSplit':
      return [split(builtIn('\\s'), 'Removed')];
    case 'BertPreTokenizer':
      return [split(builtIn('\\s'), 'Removed'), split(builtIn(PUNCTUATION), 'Isolated')];
    case 'CharDelimiterSplit':
      return [split(stringPattern(characterOf(config.delimiter, 'delimiter')), 'Removed')];
    case 'UnicodeScripts':
      return [byScript];
    case 'FixedLength':
      return [ofFixedLength(config.length ?? 5)];
    case 'ByteLevel':
      return byteLevelParts(config);
    case 'Metaspace':
      return [metaspace(config)];
    default:
      throw invalidTokenizer(
        `The pre-tokenizer is of type ${quote(config.type)}; expected Sequence, Split, Digits, Punctuation, Whitespace, WhitespaceSplit, ` +
          'BertPreTokenizer, CharDelimiterSplit, UnicodeScripts, FixedLength, ByteLevel or Metaspace.',
      );
  }
}

function builtIn(regex: string): Pattern {
  return regexPattern(regex, 'A pre-tokenizer');
}

function behaviorOf({ behavior = 'Isolated' }: Component): Behavior {
  // Files differ in the capitals.
  const known = BEHAVIORS.find((name) => typeof behavior === 'string' && name.toLowerCase() === behavior.toLowerCase());
  if (!known)
    throw invalidTokenizer(
      `A pre-tokenizer splits with the behavior ${quote(behavior)}; expected ${BEHAVIORS.join(', ')}.`,
    );
  return known;
}

function characterOf(value: unknown, what: string): string {
  if (typeof value !== 'string' || value.length === 0 || value.length > (value.codePointAt(0)! > 0xffff ? 2 : 1)) {
    throw invalidTokenizer(`A pre-tokenizer has the ${what} ${quote(value)}; expected a character.`);
  }
  return value;
}

/** Cuts a text at the matches of a pattern. `invert`: the stretches between matches count as the matches. */
function split(pattern: Pattern, behavior: Behavior, invert = false): PreTokenizer {
  return function* (text) {
    for (const stretch of behave(stretches(pattern, text, invert), behavior)) {
      if (stretch === undefined) yield undefined;
      else if (stretch[0] < stretch[1]) yield text.slice(stretch[0], stretch[1]);
    }
  };
}

function* stretches(pattern: Pattern, text: string, invert: boolean): Generator<Stretch | undefined> {
  let last = 0;
  for (const match of pattern(text)) {
    if (match === undefined) {
      yield undefined;
      continue;
    }
    const [start, end] = match;
    if (start > last) yield [last, start, invert];
    yield [start, end, !invert];
    last = end;
  }
  if (last < text.length) yield [last, text.length, invert];
}

function* behave(all: Iterable<Stretch | undefined>, behavior: Behavior): Generator<Stretch | undefined> {
  if (behavior === 'Isolated') return yield* all;
  let before: Stretch | undefined;
  for (const stretch of all) {
    if (stretch === undefined) yield undefined;
    else if (behavior === 'Removed') {
      if (!stretch[2]) yield stretch;
    } else if (before !== undefined && joins(before[2], stretch[2], behavior)) {
      before = [before[0], stretch[1], stretch[2]];
    } else {
      if (before !== undefined) yield before;
      before = stretch;
    }
  }
  if (before !== undefined) yield before;
}

/** Whether a stretch and the one before it are one word. */
function joins(beforeMatches: boolean, matches: boolean, behavior: Behavior): boolean {
  switch (behavior) {
    case 'Contiguous':
      return beforeMatches === matches;
    case 'MergedWithPrevious':
      return matches && !beforeMatches;
    default:
      return beforeMatches && !matches;
  }
}

/**
 * Begins a word where a script begins that is not that of the last character with one. As in the reference library, what
 * stands before the first character with a script is dropped.
 */
function* byScript(text: string): Generator<string | undefined> {
  let start = text.length;
  let script = 0;
  for (let at = 0, count = 1; at < text.length; count++) {
    const code = text.codePointAt(at)!;
    const found = scriptOf(code);
    if (found !== 0) {
      if (found !== script) {
        if (script !== 0) yield text.slice(start, at);
        start = at;
      }
      script = found;
    }
    if (count % CHARACTERS_AT_ONCE === 0) yield undefined;
    at += code > 0xffff ? 2 : 1;
  }
  if (start < text.length) yield text.slice(start);
}

function ofFixedLength(length: unknown): PreTokenizer {
  if (!Number.isInteger(length) || (length as number) < 1) {
    throw invalidTokenizer(
      `A pre-tokenizer cuts words of ${quote(length)} characters; expected an integer, 1 or more.`,
    );
  }
  return function* (text) {
    let start = 0;
    let count = 0;
    for (let at = 0; at < text.length;) {
      at += text.codePointAt(at)! > 0xffff ? 2 : 1;
      if (++count % (length as number) === 0) {
        yield text.slice(start, at);
        start = at;
      } else if (count % CHARACTERS_AT_ONCE === 0) yield undefined;
    }
    if (start < text.length) yield text.slice(start);
  };
}

function byteLevelParts(config: Component): PreTokenizer[] {
  const inTurn: PreTokenizer[] = [];
  if (config.add_prefix_space === true)
    inTurn.push((text, place) => [text.startsWith(' ') || place === 'continues' ? text : ` ${text}`]);
  if (config.use_regex !== false) inTurn.push(split(builtIn(GPT2_PATTERN), 'Isolated'));
  inTurn.push((word) => piecewise(word, toByteLevel));
  return inTurn;
}

function metaspace(config: Component): PreTokenizer {
  const { replacement = METASPACE } = config;
  if (typeof replacement !== 'string' || replacement === '') {
    throw invalidTokenizer(
      `A Metaspace pre-tokenizer replaces spaces with ${quote(replacement)}; expected a character.`,
    );
  }
  const { prepend_scheme: given } = config;
  if (given !== undefined && given !== null && given !== 'always' && given !== 'first' && given !== 'never') {
    throw invalidTokenizer(
      `A Metaspace pre-tokenizer has the prepend_scheme ${quote(given)}; expected always, first or never.`,
    );
  }
  const scheme = given ?? (config.add_prefix_space === false ? 'never' : 'always');
  // Each replacement character begins a word.
  const cuts = config.split === false ? undefined : split(stringPattern(replacement), 'MergedWithNext');
  return function* (text, place) {
    let spaced = '';
    for (const part of piecewise(text, (piece) => piece.replaceAll(' ', replacement))) {
      if (part === undefined) yield undefined;
      else spaced = part;
    }
    const prepends = (scheme === 'always' && place !== 'continues') || (scheme === 'first' && place === 'start');
    if (prepends && !spaced.startsWith(replacement)) spaced = replacement + spaced;
    if (cuts) yield* cuts(spaced, 'within');
    else yield spaced;
  };
}

/**
 * Changes a text piece by piece, with pauses, then gives the whole. For changes that do not depend on what stands
 * around a piece.
 */
function* piecewise(text: string, change: (piece: string) => string): Generator<string | undefined> {
  if (text.length <= CHARACTERS_AT_ONCE) {
    yield change(text);
    return;
  }
  const pieces: string[] = [];
  for (let start = 0; start < text.length;) {
    let end = Math.min(text.length, start + CHARACTERS_AT_ONCE);
    // A surrogate pair must not be cut in half.
    if (end < text.length && isHighSurrogate(text.charCodeAt(end - 1))) end--;
    pieces.push(change(text.slice(start, end)));
    start = end;
    yield undefined;
  }
  yield pieces.join('');
}
