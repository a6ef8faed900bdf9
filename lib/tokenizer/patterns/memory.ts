import { invalidTokenizer } from '../invalid.js';

const PAGE_POSITIONS = 512;
const MAX_BYTES = 1 << 28;

/** The places where an attempt to match has been: numbered instructions at positions of the text. */
export class PatternMemory {
  private readonly pages = new Map<number, Uint8Array>();
  private readonly pageBytes: number;

  /** `places`: how many instructions are numbered. */
  constructor(places: number) {
    this.pageBytes = (PAGE_POSITIONS * places) >>> 3;
  }

  /** Notes that an attempt was at a place; false if that was noted before. Throws INVALID_TOKENIZER after 256 MB. */
  enter(place: number, position: number): boolean {
    const number = Math.floor(position / PAGE_POSITIONS);
    let page = this.pages.get(number);
    if (!page) {
      if ((this.pages.size + 1) * this.pageBytes > MAX_BYTES) throw tooCostly();
      this.pages.set(number, (page = new Uint8Array(this.pageBytes)));
    }
    const bit = place * PAGE_POSITIONS + (position % PAGE_POSITIONS);
    const mask = 1 << (bit & 7);
    if ((page[bit >>> 3]! & mask) !== 0) return false;
    page[bit >>> 3]! |= mask;
    return true;
  }
}

export function tooCostly(): Error {
  return invalidTokenizer(
    'A pattern of the tokenizer takes more than 256 MB to match this text; expected one that looks less far ahead.',
  );
}
