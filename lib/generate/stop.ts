/** A stop string as a sequence of units: UTF-16 code units, and the ids of control tokens. */
export type StopUnits = ReadonlyArray<string | number>;

/**
 * Cuts a text, given in pieces, before the first stop string, and never lets out a piece of one: text that could be the
 * beginning of a stop string is held back until it is known not to be.
 *
 * The first stop string is the one that is complete first; of two complete at the same character, the longer. So the
 * result does not depend on where the pieces are cut. Control tokens have no text. A stop string that names control
 * tokens is matched against the text with the control tokens between its characters; for any other stop string they are
 * ignored.
 */
export class StopMatcher {
  readonly #stops: Stop[];
  /** Text not let out yet: the longest end of the text so far that begins a stop string. */
  #held = '';

  /** `stops` are not empty. */
  constructor(stops: ReadonlyArray<string | StopUnits>) {
    this.#stops = stops.map(stopOf);
  }

  /**
   * Takes the next piece of text and the control token after it, if there is one. Returns the text that is now safe to
   * show. Once `stopped`, nothing more may be pushed.
   */
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
  /** Whether the stop string names control tokens, so that control tokens in the text are matched too. */
  seesControls: boolean;
  /** `lengths[n]`: how many of the first n units are characters. */
  lengths: Int32Array;
  /** `borders[n]`: the number of units in the longest proper beginning of the first n units that is also their end. */
  borders: Int32Array;
  matched: number;
}

function stopOf(stop: string | StopUnits): Stop {
  const units = typeof stop === 'string' ? codeUnits(stop) : stop;
  const lengths = new Int32Array(units.length + 1);
  units.forEach((unit, i) => (lengths[i + 1] = lengths[i]! + (typeof unit === 'string' ? 1 : 0)));
  return { units, seesControls: lengths[units.length]! < units.length, lengths, borders: bordersOf(units), matched: 0 };
}

/** Takes the next unit of the text. True when it completes the stop string. */
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
