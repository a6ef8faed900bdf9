import { invalidTokenizer, objectOf, quote } from '../invalid.js';
import { PatternMatcher } from './matcher.js';
import { fromOniguruma } from './oniguruma.js';
import { compilePattern, type PatternProgram } from './program.js';

/** How many characters of a long text are worked on between two pauses. */
export const CHARACTERS_AT_ONCE = 1 << 13;

/** A match's positions in the text: the first, and the one after the last; or a pause in a long search. */
export type MatchOrPause = readonly [start: number, end: number] | undefined;

/** Finds something in a text, from the start, with pauses. */
export type Pattern = (text: string) => Iterable<MatchOrPause>;

/**
 * A pattern of a tokenizer.json, `{ "Regex": … }` or `{ "String": … }`. Throws INVALID_TOKENIZER; `what` names its
 * owner in the message.
 */
export function createPattern(config: unknown, what: string): Pattern {
  const { Regex: regex, String: string } = objectOf(config);
  if (typeof regex === 'string') return regexPattern(regex, what);
  if (typeof string === 'string' && string !== '') return stringPattern(string);
  throw invalidTokenizer(`${what} has the pattern ${quote(config)}; expected a Regex or a String.`);
}

/** Finds every occurrence of a string that does not overlap the one before. */
export function stringPattern(string: string): Pattern {
  return function* (text) {
    let from = 0;
    while (from + string.length <= text.length) {
      // Each search is limited to a window, because it cannot be interrupted.
      const window = text.slice(from, from + CHARACTERS_AT_ONCE + string.length - 1);
      let start = 0;
      for (let found = window.indexOf(string); found !== -1; found = window.indexOf(string, start)) {
        start = found + string.length;
        yield [from + found, from + start];
      }
      from += Math.max(start, window.length - string.length + 1);
      yield undefined;
    }
  };
}

/**
 * Finds every match of a regular expression in Oniguruma's syntax. Throws INVALID_TOKENIZER; `what` names its owner in
 * the message.
 */
export function regexPattern(regex: string, what: string): Pattern {
  const program = compile(regex, what);
  return function* (text) {
    const matcher = new PatternMatcher(program, text);
    for (;;) {
      const found = matcher.next();
      if (found === false) return;
      yield found === undefined ? undefined : [matcher.start, matcher.end];
    }
  };
}

const MAX_LENGTH = 1 << 13;

function compile(regex: string, what: string): PatternProgram {
  if (regex.length > MAX_LENGTH)
    throw invalidTokenizer(`${what} has a pattern of ${regex.length} characters; at most ${MAX_LENGTH} are expected.`);
  try {
    return compilePattern(fromOniguruma(regex));
  } catch (cause) {
    throw invalidTokenizer(
      `${what} has the pattern ${quote(regex)}, which cannot be compiled: ${(cause as Error).message}.`,
      cause,
    );
  }
}
