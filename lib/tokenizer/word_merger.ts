import type { MergeRank } from './parts.js';

/** Merges tried between two pauses: a tenth of a millisecond or so. */
const MERGES_AT_ONCE = 256;

const NONE = -1;

/**
 * Byte-pair encoding of a word: of all neighbours that merge, those of the lowest rank do first, the leftmost of
 * equals, until none are left. The merges that are possible wait in a heap, each once, so n characters take O(n log n).
 */
export class WordMerger {
  /**
   * By the position where a symbol begins: where the next one begins, which is the word's length after the last; and
   * where the one before begins, or −1.
   */
  readonly next: Int32Array;
  private readonly previous: Int32Array;
  /**
   * By the position of a left symbol: the rank of its merge with the right one; and 1 + the place of this merge in the
   * heap, or 0 if it is not there.
   */
  private readonly rank: Int32Array;
  private readonly place: Int32Array;
  /** Positions of left symbols. */
  private readonly heap: Int32Array;
  private size = 0;
  /** The position up to which the word is cut into symbols, and the one up to which merges were put into the heap. */
  private cut = 0;
  private seeded = 0;

  /** `longest`: no piece has more UTF-16 code units. */
  constructor(
    private readonly word: string,
    private readonly mergeRank: MergeRank,
    private readonly longest = Infinity,
  ) {
    const { length } = word;
    this.next = new Int32Array(length);
    this.previous = new Int32Array(length + 1);
    this.previous[0] = NONE;
    this.rank = new Int32Array(length);
    this.place = new Int32Array(length);
    this.heap = new Int32Array(length);
  }

  /**
   * Goes on for a while; true when the symbols are final: the first begins at 0, the one after at `next[0]`, and so on.
   */
  advance(): boolean {
    const { length } = this.word;
    for (let tried = 0; tried < MERGES_AT_ONCE; tried++) {
      if (this.cut < length) this.cutOne();
      else if (this.seeded < length) {
        this.wait(this.seeded);
        this.seeded = this.next[this.seeded]!;
      } else if (this.size > 0) this.mergeOne();
      else return true;
    }
    return false;
  }

  private cutOne(): void {
    const start = this.cut;
    this.cut += this.word.codePointAt(start)! > 0xffff ? 2 : 1;
    this.next[start] = this.cut;
    this.previous[this.cut] = start;
  }

  private mergeOne(): void {
    const left = this.heap[0]!;
    const right = this.next[left]!;
    if (this.place[right]! > 0) this.remove(right);
    this.next[left] = this.next[right]!;
    this.previous[this.next[right]!] = left;
    this.wait(left);
    if (left > 0) this.wait(this.previous[left]!);
  }

  /** Brings the heap up to date about the merge of a symbol with the next one. */
  private wait(left: number): void {
    const rank = this.rankAt(left);
    const place = this.place[left]! - 1;
    if (rank === undefined) {
      if (place >= 0) this.remove(left);
      return;
    }
    this.rank[left] = rank;
    this.settle(left, place < 0 ? this.size++ : place);
  }

  private rankAt(left: number): number | undefined {
    const right = this.next[left]!;
    if (right >= this.word.length) return undefined;
    const end = this.next[right]!;
    return end - left > this.longest ? undefined : this.mergeRank(this.word.slice(left, end), right - left);
  }

  private remove(left: number): void {
    const place = this.place[left]! - 1;
    const last = this.heap[--this.size]!;
    this.place[left] = 0;
    if (last !== left) this.settle(last, place);
  }

  /** Puts a merge at a place of the heap, or where it belongs above or below that. */
  private settle(left: number, place: number): void {
    const { heap } = this;
    let at = place;
    for (let parent = (at - 1) >>> 1; at > 0 && this.precedes(left, heap[parent]!); parent = (at - 1) >>> 1) {
      this.move(heap[parent]!, at);
      at = parent;
    }
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.size) break;
      if (child + 1 < this.size && this.precedes(heap[child + 1]!, heap[child]!)) child++;
      if (!this.precedes(heap[child]!, left)) break;
      this.move(heap[child]!, at);
      at = child;
    }
    this.move(left, at);
  }

  private move(left: number, place: number): void {
    this.heap[place] = left;
    this.place[left] = place + 1;
  }

  private precedes(one: number, other: number): boolean {
    return this.rank[one]! < this.rank[other]! || (this.rank[one] === this.rank[other] && one < other);
  }
}
