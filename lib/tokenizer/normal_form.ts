import { CHARACTERS_AT_ONCE } from './patterns/pattern.js';
import { isLowSurrogate } from './surrogates.js';

export type NormalForm = 'NFC' | 'NFD' | 'NFKC' | 'NFKD';

const MARK = /^\p{M}/u;

/**
 * Rows of marks that are put in order here: the engine's `normalize` takes time that grows with the square of their
 * number.
 */
const MANY_MARKS = /\p{M}{256,}/gu;

/**
 * Characters other than marks that join or trade places with those before them: Hangul's vowels and final consonants,
 * and their compatibility forms; half-width voiced sound marks; vowel signs of Tulu-Tigalari and Kirat Rai. A test
 * checks every code point.
 */
const JOINING =
  /^[\u1160-\u11ff\u3131-\u318e\ua960-\ua97f\ud7b0-\ud7ff\uff9e-\uffdc\u{113c2}-\u{113c9}\u{16d40}-\u{16d7f}]/u;

/** A text in one of Unicode's normal forms, made in pieces that do not depend on each other, with pauses. */
export function* inNormalForm(text: string, form: NormalForm): Generator<void, string> {
  const pieces: string[] = [];
  for (let start = 0; start < text.length;) {
    const end = yield* boundary(text, start + CHARACTERS_AT_ONCE);
    const piece = text.slice(start, end);
    pieces.push((yield* withMarksInOrder(piece)).normalize(form));
    start = end;
    yield;
  }
  return pieces.join('');
}

/** Whether a text can be cut at a place: what follows changes nothing that stands before, in any form. */
export function beginsAnew(text: string, at: number): boolean {
  const unit = text.charCodeAt(at);
  if (unit < 0x80) return true;
  if (isLowSurrogate(unit)) return false;
  const character = String.fromCodePoint(text.codePointAt(at)!);
  return !MARK.test(character) && !JOINING.test(character);
}

function* boundary(text: string, from: number): Generator<void, number> {
  let at = Math.min(from, text.length);
  while (at < text.length && !beginsAnew(text, at)) if (++at % CHARACTERS_AT_ONCE === 0) yield;
  return at;
}

/** The text with its long rows of marks in canonical order. */
function* withMarksInOrder(text: string): Generator<void, string> {
  const parts: string[] = [];
  let last = 0;
  for (const { 0: marks, index } of text.matchAll(MANY_MARKS)) {
    parts.push(text.slice(last, index));
    yield* inOrder(marks, parts);
    last = index + marks.length;
  }
  return last === 0 ? text : parts.join('') + text.slice(last);
}

/**
 * Appends marks in the order of their combining classes. Marks of one class keep their order, and none passes a mark
 * without a class.
 */
function* inOrder(marks: string, parts: string[]): Generator<void> {
  const classes = new MarkClasses();
  const row = new Map<string, GrowingText>();
  const flush = (): void => {
    for (const name of [...row.keys()].toSorted((a, b) => (trade(a, b) ? 1 : -1)))
      parts.push(row.get(name)!.toString());
    row.clear();
  };
  let count = 0;
  for (const composed of marks) {
    for (const mark of composed.normalize('NFD')) {
      const name = classes.of(mark);
      if (name === undefined) {
        flush();
        parts.push(mark);
        continue;
      }
      const same = row.get(name) ?? new GrowingText();
      row.set(name, same);
      same.push(mark);
    }
    if (++count % CHARACTERS_AT_ONCE === 0) yield;
  }
  flush();
}

/** Combining classes, each named after its first mark that was asked for. */
class MarkClasses {
  private readonly names = new Map<string, string | undefined>();
  private readonly firsts: string[] = [];

  /** Undefined for a mark without a class, which stays where it is. */
  of(mark: string): string | undefined {
    if (this.names.has(mark)) return this.names.get(mark);
    let name: string | undefined;
    if (hasClass(mark)) {
      name = this.firsts.find((first) => !trade(first, mark) && !trade(mark, first));
      if (name === undefined) this.firsts.push((name = mark));
    }
    this.names.set(mark, name);
    return name;
  }
}

/** Builds a long string from short ones without keeping each of them in memory. */
class GrowingText {
  private units = new Uint16Array(64);
  private length = 0;

  push(text: string): void {
    if (this.length + text.length > this.units.length) {
      const larger = new Uint16Array(2 * this.units.length);
      larger.set(this.units);
      this.units = larger;
    }
    for (let i = 0; i < text.length; i++) this.units[this.length++] = text.charCodeAt(i);
  }

  toString(): string {
    return Buffer.from(this.units.buffer, 0, 2 * this.length).toString('utf16le');
  }
}

/** Whether the second mark belongs before the first. */
function trade(first: string, second: string): boolean {
  return (first + second).normalize('NFD') !== first + second;
}

/** Whether a mark has a combining class: then it trades places with a mark of the lowest or of the highest class. */
function hasClass(mark: string): boolean {
  return trade(mark, '\u0334') || trade('\u0345', mark);
}
