/**
 * Cuts a text, given in pieces, before the first stop string, and never lets out a piece of one: text that could be the
 * beginning of a stop string is held back until it is known not to be.
 *
 * The first stop string is the one that is complete first; of two complete at the same character, the longer. So the result
 * does not depend on where the pieces are cut.
 */
export class StopMatcher {
  readonly #stops: Stop[];
  /** Text not let out yet: the longest end of the text so far that begins a stop string. */
  #held = '';

  /** `stops` are not empty. */
  constructor(stops: readonly string[]) {
    this.#stops = stops.map((text) => ({ text, borders: bordersOf(text), matched: 0 }));
  }

  /** Takes the next piece; returns what is now safe to show. Once `stopped`, nothing more may be pushed. */
  push(piece: string): { text: string; stopped: boolean } {
    const text = this.#held + piece;
    for (let i = this.#held.length; i < text.length; i++) {
      let found = 0;
      for (const stop of this.#stops) {
        advance(stop, text[i]!);
        if (stop.matched === stop.text.length) found = Math.max(found, stop.matched);
      }
      if (found > 0) {
        this.#held = '';
        return { text: text.slice(0, i + 1 - found), stopped: true };
      }
    }
    const safe = text.length - Math.max(0, ...this.#stops.map((stop) => stop.matched));
    this.#held = text.slice(safe);
    return { text: text.slice(0, safe), stopped: false };
  }

  /** The text ends here: returns what was held back. */
  flush(): string {
    const text = this.#held;
    this.#held = '';
    return text;
  }
}

/** A stop string and how much of its beginning ends the text so far (Knuth, Morris and Pratt). */
interface Stop {
  text: string;
  /** For each length, the longest shorter beginning that is also an end of that beginning. */
  borders: Int32Array;
  matched: number;
}

function advance(stop: Stop, unit: string): void {
  while (stop.matched > 0 && stop.text[stop.matched] !== unit) stop.matched = stop.borders[stop.matched]!;
  if (stop.text[stop.matched] === unit) stop.matched++;
}

function bordersOf(text: string): Int32Array {
  const borders = new Int32Array(text.length + 1);
  let border = 0;
  for (let i = 1; i < text.length; i++) {
    while (border > 0 && text[i] !== text[border]) border = borders[border]!;
    if (text[i] === text[border]) border++;
    borders[i + 1] = border;
  }
  return borders;
}
