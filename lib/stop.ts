/** A stop string as what it is found in: UTF-16 code units, and control tokens by their ids. */
export type StopUnits = ReadonlyArray<string | number>;

/**
 * Cuts a text, given in pieces, before the first stop string, and never lets out a piece of one: text that could be the
 * beginning of a stop string is held back until it is known not to be.
 *
 * The first stop string is the one that is complete first; of two complete at the same character, the longer. So the result
 * does not depend on where the pieces are cut. Control tokens have no text: they stand between its characters for those stop strings that name
 * control tokens, and for others they are not there.
 */
export class StopMatcher {
  readonly #stops: Stop[];
  /** Text not let out yet: the longest end of the text so far that begins a stop string. */
  #held = '';

  /** `stops` are not empty. */
  constructor(stops: ReadonlyArray<string | StopUnits>) {
    this.#stops = stops.map(stopOf);
  }

  /** Takes the next piece, and the control token after it; returns what is now safe to show. Once `stopped`, nothing more may be pushed. */
  push(piece: string, control?: number): { text: string; stopped: boolean } {
    const text = this.#held + piece;
    const units: Array<string | number> = [...codeUnits(piece), ...(control === undefined ? [] : [control])];
    let end = this.#held.length;
    for (const unit of units) {
      if (typeof unit === 'string') end++;
      let found = -1;
      for (const stop of this.#stops) if (advance(stop, unit)) found = Math.max(found, stop.lengths[stop.matched]!);
      if (found >= 0) {
        this.#held = '';
        return { text: text.slice(0, end - found), stopped: true };
      }
    }
    const safe = text.length - Math.max(0, ...this.#stops.map((stop) => stop.lengths[stop.matched]!));
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
  units: StopUnits;
  /** Whether it names control tokens, so that those in the text count. */
  seesControls: boolean;
  /** For each number of units, the characters they hold. */
  lengths: Int32Array;
  /** For each number of units, the longest shorter beginning that is also an end of that beginning. */
  borders: Int32Array;
  matched: number;
}

function stopOf(stop: string | StopUnits): Stop {
  const units = typeof stop === 'string' ? codeUnits(stop) : stop;
  const lengths = new Int32Array(units.length + 1);
  units.forEach((unit, i) => (lengths[i + 1] = lengths[i]! + (typeof unit === 'string' ? 1 : 0)));
  return { units, seesControls: lengths[units.length]! < units.length, lengths, borders: bordersOf(units), matched: 0 };
}

/** Whether the stop is complete with this unit. */
function advance(stop: Stop, unit: string | number): boolean {
  if (typeof unit === 'number' && !stop.seesControls) return false;
  while (stop.matched > 0 && stop.units[stop.matched] !== unit) stop.matched = stop.borders[stop.matched]!;
  if (stop.units[stop.matched] === unit) stop.matched++;
  return stop.matched === stop.units.length;
}

function bordersOf(units: StopUnits): Int32Array {
  const borders = new Int32Array(units.length + 1);
  let border = 0;
  for (let i = 1; i < units.length; i++) {
    while (border > 0 && units[i] !== units[border]) border = borders[border]!;
    if (units[i] === units[border]) border++;
    borders[i + 1] = border;
  }
  return borders;
}

function codeUnits(text: string): string[] {
  return text.split('');
}
