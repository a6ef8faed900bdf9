/** A set of code points. */
export interface CharacterSet {
  has(code: number): boolean;
}

const MAX_SHARED = 256;
const MAX_ASTRAL = 1 << 16;

/** Sets by their source, shared between patterns, because most patterns use the same few. */
const shared = new Map<string, CharacterSet>();

/**
 * The code points that a part of a regular expression with the flag u matches; the part is an escape or a class in
 * brackets. Throws SyntaxError.
 */
export function characterSet(source: string): CharacterSet {
  let set = shared.get(source);
  if (!set) {
    set = new TabledSet(new RegExp(`^(?:${source})$`, 'u'));
    if (shared.size < MAX_SHARED) shared.set(source, set);
  }
  return set;
}

/** A set defined by a regular expression, whose answers are remembered in a table. */
class TabledSet implements CharacterSet {
  /** 0: not asked yet, 1: in the set, 2: not. */
  private readonly low = new Uint8Array(0x10000);
  private readonly high = new Map<number, boolean>();

  constructor(private readonly pattern: RegExp) {}

  has(code: number): boolean {
    if (code > 0xffff) return this.hasHigh(code);
    const known = this.low[code]!;
    if (known !== 0) return known === 1;
    const answer = this.pattern.test(String.fromCharCode(code));
    this.low[code] = answer ? 1 : 2;
    return answer;
  }

  private hasHigh(code: number): boolean {
    const known = this.high.get(code);
    if (known !== undefined) return known;
    const answer = this.pattern.test(String.fromCodePoint(code));
    if (this.high.size < MAX_ASTRAL) this.high.set(code, answer);
    return answer;
  }
}
