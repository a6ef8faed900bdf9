import { CHARACTERS_AT_ONCE } from './pattern.js';

export type NormalForm = 'NFC' | 'NFD' | 'NFKC' | 'NFKD';

const MARK = /^\p{M}/u;

/** Marks in a row that are put in order here: the engine's own way takes time with the square of their number. */
const MANY_MARKS = /\p{M}{256,}/gu;

/**
 * What joins or trades places with the characters before it, besides marks: Hangul's vowels and final consonants and what stands for them, voiced
 * sound marks of half width, vowel signs of Tulu-Tigalari and Kirat Rai. A test asks every code point.
 */
const JOINING = /^[\u1160-\u11ff\u3131-\u318e\ua960-\ua97f\ud7b0-\ud7ff\uff9e-\uffdc\u{113c2}-\u{113c9}\u{16d40}-\u{16d7f}]/u;

/** A text in one of Unicode's normal forms, made in pieces that do not depend on each other, with pauses. */
export function* inNormalForm(text: string, form: NormalForm): Generator<void, string> {
  const pieces: string[] = [];
  for (let start = 0; start < text.length; ) {
    const end = boundary(text, start + CHARACTERS_AT_ONCE);
    const piece = text.slice(start, end);
    pieces.push((yield* withMarksInOrder(piece)).normalize(form));
    start = end;
    yield;
  }
  return pieces.join('');
}

/** Whether nothing that stands from here on can change what stands before, in any form. */
export function beginsAnew(text: string, at: number): boolean {
  const unit = text.charCodeAt(at);
  if (unit < 0x80) return true;
  if (unit >= 0xdc00 && unit <= 0xdfff) return false;
  const character = String.fromCodePoint(text.codePointAt(at)!);
  return !MARK.test(character) && !JOINING.test(character);
}

function boundary(text: string, from: number): number {
  let at = Math.min(from, text.length);
  while (at < text.length && !beginsAnew(text, at)) at++;
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

/** Appends marks, by their combining classes; those of one class stay in their order, and none passes a mark without a class. */
function* inOrder(marks: string, parts: string[]): Generator<void> {
  /** Each mark's class, named after its first mark; undefined for none. */
  const classes = new Map<string, string | undefined>();
  const row = new Map<string, string[]>();
  const flush = (): void => {
    for (const name of [...row.keys()].toSorted((a, b) => (trade(a, b) ? 1 : -1))) for (const mark of row.get(name)!) parts.push(mark);
    row.clear();
  };
  let count = 0;
  for (const composed of marks) {
    for (const mark of composed.normalize('NFD')) {
      if (!classes.has(mark)) classes.set(mark, hasClass(mark) ? ([...new Set(classes.values())].find((name) => name !== undefined && !trade(name, mark) && !trade(mark, name)) ?? mark) : undefined);
      const name = classes.get(mark);
      if (name === undefined) {
        flush();
        parts.push(mark);
      } else {
        const same = row.get(name);
        if (same) same.push(mark);
        else row.set(name, [mark]);
      }
    }
    if (++count % CHARACTERS_AT_ONCE === 0) yield;
  }
  flush();
}

/** Whether the second mark belongs before the first. */
function trade(first: string, second: string): boolean {
  return (first + second).normalize('NFD') !== first + second;
}

/** Marks of the lowest class and of the highest trade places with all others that have one. */
function hasClass(mark: string): boolean {
  return trade(mark, '\u0334') || trade('\u0345', mark);
}
