/** The ends of a text that are stripped. */
export type Side = 'left' | 'right' | 'both';

/** Methods of texts that strip. */
export const SIDES: Readonly<Record<string, Side>> = { strip: 'both', lstrip: 'left', rstrip: 'right' };

/**
 * What Python's `str.isspace` is true of. Unlike JavaScript's whitespace, it has the separators U+001C to U+001F and
 * U+0085, and leaves out U+FEFF.
 */
// eslint-disable-next-line no-control-regex
const SPACE = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;

/** A text as Python's `strip` leaves it: without the whitespace, or without the `characters`, at these ends. */
export function strip(text: string, side: Side, characters?: string): string {
  const dropped = new Set(characters);
  const drops = (character: string): boolean =>
    characters === undefined ? SPACE.test(character) : dropped.has(character);
  let start = 0;
  let end = text.length;
  while (side !== 'right' && start < end) {
    const character = String.fromCodePoint(text.codePointAt(start)!);
    if (!drops(character)) break;
    start += character.length;
  }
  while (side !== 'left' && start < end) {
    const pair = text.codePointAt(end - 2);
    const character =
      pair !== undefined && pair > 0xffff && end - 2 >= start ? text.slice(end - 2, end) : text[end - 1]!;
    if (!drops(character)) break;
    end -= character.length;
  }
  return text.slice(start, end);
}
