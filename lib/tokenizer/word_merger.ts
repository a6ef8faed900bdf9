import type { MergeRank } from './parts.js';

/** Merges tried between two pauses: a tenth of a millisecond or so. */
const STEPS_AT_ONCE = 256;

/** A merge waits as rank · 2³⁰ + position, so that the lowest number is the next. */
const RANK = 2 ** 30;
const NONE = -1;

/**
 * Byte-pair encoding of a word: of all neighbours that merge, those of the lowest rank do first, the leftmost of equals, until none are left.
 * The merges that are possible wait in a heap, so n characters take O(n log n). A merge that another has made obsolete is not the one that
 * `waiting` holds for its position, and is dropped when its turn comes.
 */
export class WordMerger {
  /** By the position where a symbol begins: that of the next, the word's length after the last; and that of the one before, or −1. */
  readonly next: Int32Array;
  private readonly previous: Int32Array;
  /** By the position of a left symbol: its merge with the right one, as in the heap. */
  private readonly waiting: Float64Array;
  private heap: Float64Array;
  private size = 0;
  /** Up to where the word is cut into symbols, and up to where their merges wait. */
  private cut = 0;
  private seeded = 0;

  /** `longest`: no piece has more UTF-16 code units. */
  constructor(private readonly word: string, private readonly mergeRank: MergeRank, private readonly longest = Infinity) {
    const { length } = word;
    this.next = new Int32Array(length);
    this.previous = new Int32Array(length + 1);
    this.waiting = new Float64Array(length);
    this.heap = new Float64Array(length);
    if (length > 0) this.previous[0] = NONE;
  }

  /** Goes on for a while; true when the symbols are final: the first begins at 0, the one after at `next[0]`, and so on. */
  step(): boolean {
    const { length } = this.word;
    for (let steps = 0; steps < STEPS_AT_ONCE; steps++) {
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
    const first = this.pop();
    const left = first % RANK;
    if (this.waiting[left] !== first) return;
    const right = this.next[left]!;
    this.waiting[right] = NONE;
    this.next[left] = this.next[right]!;
    this.previous[this.next[right]!] = left;
    this.wait(left);
    if (left > 0) this.wait(this.previous[left]!);
  }

  /** Puts the merge of a symbol with the next one into the heap, if there is one. */
  private wait(left: number): void {
    const right = this.next[left]!;
    this.waiting[left] = NONE;
    if (right >= this.word.length) return;
    const end = this.next[right]!;
    if (end - left > this.longest) return;
    const rank = this.mergeRank(this.word.slice(left, end), right - left);
    if (rank !== undefined) this.push((this.waiting[left] = rank * RANK + left));
  }

  private push(key: number): void {
    if (this.size === this.heap.length) {
      const larger = new Float64Array(this.size * 2);
      larger.set(this.heap);
      this.heap = larger;
    }
    const { heap } = this;
    let at = this.size++;
    while (at > 0) {
      const parent = (at - 1) >>> 1;
      if (heap[parent]! <= key) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = key;
  }

  private pop(): number {
    const { heap } = this;
    const first = heap[0]!;
    const last = heap[--this.size]!;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.size) break;
      if (child + 1 < this.size && heap[child + 1]! < heap[child]!) child++;
      if (heap[child]! >= last) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
    return first;
  }
}
