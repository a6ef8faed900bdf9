import { PatternMemory, tooCostly } from './memory.js';
import { Op, type PatternProgram } from './program.js';
import { isHighSurrogate, isLowSurrogate } from '../surrogates.js';

const LIMITS = {
  /** Instructions and characters taken between two pauses: a tenth of a millisecond or so. */
  atOnce: 1 << 13,
  /** An attempt that takes more of them than this remembers where it has been; in plain text it takes a dozen. */
  beforeMemory: 1 << 11,
};

const FRAME = 4;
const MAX_FRAMES = 1 << 24;

/**
 * A frame's first number says where to go on: an instruction of the program, LOOKING, or −3 − pc for the Repeat at pc.
 */
const LOOKING = -1;

/**
 * Finds the matches of a pattern in a text, as a regular expression with the flags g and u does. Two things differ. It
 * pauses, so a text may be long. And it never goes on twice from the same place of the pattern at the same position of
 * the text, so no pattern takes exponential time.
 */
export class PatternMatcher {
  /** The match found last: its first position, and the one after its last. */
  start = 0;
  end = 0;

  /** Where the attempt that begins at `from` is in the program and in the text; −1 between attempts. */
  private pc = -1;
  private at = 0;
  private from = 0;
  private budget = 0;
  private left: number;
  /** Where to go on when what follows fails: [where, position, …]. */
  private stack = new Int32Array(16 * FRAME);
  private frames = 0;
  /** Where this attempt, and those that failed since the last match, have been. */
  private memory: PatternMemory | undefined;
  private remembered = false;
  /** For each look that is under way: the memory outside of it, and the height of the stack. */
  private readonly outside: Array<{ memory: PatternMemory | undefined; frames: number }> = [];
  /** How far a Repeat that was paused has come, and after how many code points; −1 between Repeats. */
  private scanned = -1;
  private repeats = 0;
  /** The first and the last position where what follows the Repeat may begin; −1 if there is none. */
  private nearest = -1;
  private farthest = -1;
  /** By the number of a Repeat: the first and the last of the positions from which what follows it is known to fail. */
  private readonly failsFrom: Int32Array;
  private readonly failsTo: Int32Array;

  constructor(
    private readonly program: PatternProgram,
    private readonly text: string,
    private readonly limits = LIMITS,
  ) {
    this.left = limits.atOnce;
    this.failsFrom = new Int32Array(program.places).fill(-1);
    this.failsTo = new Int32Array(program.places).fill(-1);
  }

  /**
   * Looks for the next match: true when it is found, false when there is none, undefined for a pause, after which it is
   * to be called again.
   */
  next(): boolean | undefined {
    // Several matches share what is done between two pauses, so that a caller that drops every match pauses, too.
    while (this.left > 0) {
      if (this.pc < 0) {
        if (this.from > this.text.length) return false;
        this.begin();
      }
      const budget = this.memory ? this.left : Math.min(this.left, this.limits.beforeMemory);
      this.budget = budget;
      this.run();
      this.left -= budget - this.budget;
      if (this.pc >= 0) {
        if (!this.memory) {
          // The attempt begins again, because its memory has to hold all that it tries, in order.
          this.memory = new PatternMemory(this.program.places);
          this.begin();
        }
      } else if (this.end < 0) {
        this.from = this.following(this.from);
        this.left--;
      } else {
        this.succeed();
        return true;
      }
    }
    this.left = this.limits.atOnce;
    return undefined;
  }

  private begin(): void {
    this.pc = 0;
    this.at = this.from;
    this.frames = 0;
    this.outside.length = 0;
    this.scanned = -1;
    this.end = -1;
  }

  private succeed(): void {
    this.start = this.from;
    // After an empty match it goes on with the next code point.
    this.from = this.end > this.start ? this.end : this.following(this.end);
    this.memory = undefined;
    if (!this.remembered) return;
    // A place that was remembered may not have failed, but still been under way.
    this.remembered = false;
    this.failsFrom.fill(-1);
    this.failsTo.fill(-1);
  }

  private following(position: number): number {
    const code = this.text.codePointAt(position);
    return position + (code !== undefined && code > 0xffff ? 2 : 1);
  }

  /** Goes on with an attempt until the budget or the attempt ends: `pc` is −1 then, and `end` too where it failed. */
  // oxlint-disable-next-line max-lines-per-function -- one case for each operation, in the loop that has to be fast
  private run(): void {
    const {
      text,
      program: { ops, x, y, z, place, sets },
    } = this;
    while (this.budget > 0) {
      this.budget--;
      const pc = this.pc;
      let goesOn = true;
      switch (ops[pc]! as Op) {
        case Op.Char:
        case Op.Set: {
          const code = text.codePointAt(this.at);
          goesOn = code !== undefined && (ops[pc] === Op.Char ? code === x[pc] : sets[x[pc]!]!.has(code));
          if (goesOn) {
            this.at += code! > 0xffff ? 2 : 1;
            this.pc = pc + 1;
          }
          break;
        }
        case Op.Repeat:
          if (this.scan(pc)) return;
          goesOn = false;
          break;
        case Op.Split: {
          if (this.memory && !this.enter(place[pc]!, this.at)) {
            goesOn = false;
            break;
          }
          // Most choices are decided by the next character.
          const first = x[pc]!;
          if (ops[first] === Op.Char && text.codePointAt(this.at) !== x[first]) {
            this.pc = y[pc]!;
            break;
          }
          this.push(y[pc]!, this.at, 0, 0);
          this.pc = first;
          break;
        }
        case Op.Jump:
          this.pc = x[pc]!;
          break;
        case Op.LookAtOne: {
          const code = (z[pc]! & 1) === 0 ? text.codePointAt(this.at) : codePointBefore(text, this.at);
          const found = code !== undefined && sets[x[pc]!]!.has(code);
          goesOn = found === ((z[pc]! & 2) === 0);
          if (goesOn) this.pc = pc + 1;
          break;
        }
        case Op.Look:
          this.push(LOOKING, this.at, pc, 0);
          this.outside.push({ memory: this.memory, frames: this.frames });
          // A look has a memory of its own, because what succeeds in it may succeed again.
          if (this.memory) this.memory = new PatternMemory(this.program.places);
          this.pc = pc + 1;
          break;
        case Op.LookEnd: {
          this.frames = this.outside.at(-1)!.frames;
          goesOn = this.leaveLook(true);
          break;
        }
        case Op.Match:
          this.end = this.at;
          this.pc = -1;
          return;
      }
      if (!goesOn && !this.goBack()) {
        this.pc = -1;
        return;
      }
    }
  }

  /**
   * Takes all that a Repeat can, and leaves a frame to go on from the farthest position first. True if the budget ended
   * before that.
   */
  private scan(pc: number): boolean {
    const {
      text,
      program: { x, y, z, place, sets },
    } = this;
    const set = sets[x[pc]!]!;
    const [least, most] = [y[pc]!, z[pc]!];
    const number = place[pc]!;
    // Known failures only help a Repeat without a maximum: one with a maximum may end before them.
    const knownFrom = most < 0 ? this.failsFrom[number]! : Infinity;
    const knownTo = this.failsTo[number]!;
    if (this.scanned < 0) {
      this.scanned = this.at;
      this.repeats = 0;
      this.nearest = -1;
      this.farthest = -1;
    }
    for (;;) {
      if (this.repeats === least) this.nearest = this.scanned;
      if (this.repeats >= least && knownFrom <= this.scanned && this.scanned <= knownTo) {
        // What follows is known to fail from here on, so only the positions before are left.
        this.scanned = knownTo;
        break;
      }
      if (this.repeats >= least) this.farthest = this.scanned;
      if (this.repeats === most || this.scanned >= text.length) break;
      const code = text.codePointAt(this.scanned)!;
      if (!set.has(code)) break;
      if (--this.budget < 0) return true;
      this.scanned += code > 0xffff ? 2 : 1;
      this.repeats++;
    }
    if (this.farthest >= 0) this.push(-3 - pc, this.nearest, this.farthest, this.scanned);
    this.scanned = -1;
    return false;
  }

  /** Goes back to the last choice that is left; false where there is none. */
  private goBack(): boolean {
    const {
      text,
      program: { z, place },
    } = this;
    while (this.frames > 0) {
      this.budget--;
      const top = (this.frames - 1) * FRAME;
      const kind = this.stack[top]!;
      if (kind >= 0) {
        this.frames--;
        this.pc = kind;
        this.at = this.stack[top + 1]!;
        return true;
      }
      if (kind === LOOKING) {
        if (this.leaveLook(false)) return true;
        continue;
      }
      const pc = -3 - kind;
      const number = place[pc]!;
      const nearest = this.stack[top + 1]!;
      const next = this.stack[top + 2]!;
      if (next < nearest) {
        this.frames--;
        if (z[pc]! < 0) this.fails(number, nearest, this.stack[top + 3]!);
        continue;
      }
      const isPair =
        next - nearest >= 2 && isLowSurrogate(text.charCodeAt(next - 1)) && isHighSurrogate(text.charCodeAt(next - 2));
      this.stack[top + 2] = next - (isPair ? 2 : 1);
      if (this.memory && !this.enter(number, next)) continue;
      this.pc = pc + 1;
      this.at = next;
      return true;
    }
    return false;
  }

  /** Ends the look whose frame is on top. True if the attempt goes on after it. */
  private leaveLook(found: boolean): boolean {
    const { z, x } = this.program;
    this.memory = this.outside.pop()!.memory;
    const top = --this.frames * FRAME;
    const look = this.stack[top + 2]!;
    if (found !== ((z[look]! & 2) === 0)) return false;
    this.at = this.stack[top + 1]!;
    this.pc = x[look]!;
    return true;
  }

  private fails(number: number, from: number, to: number): void {
    // Stretches that touch become one: what follows fails from each position of either.
    const joins = from <= this.failsFrom[number]! && this.failsFrom[number]! <= to + 1;
    this.failsTo[number] = joins ? Math.max(to, this.failsTo[number]!) : to;
    this.failsFrom[number] = from;
  }

  private enter(place: number, position: number): boolean {
    const isFirst = this.memory!.enter(place, position);
    if (!isFirst) this.remembered = true;
    return isFirst;
  }

  private push(kind: number, second: number, third: number, fourth: number): void {
    const top = this.frames * FRAME;
    if (top === this.stack.length) {
      if (this.frames >= MAX_FRAMES) throw tooCostly();
      const larger = new Int32Array(this.stack.length * 2);
      larger.set(this.stack);
      this.stack = larger;
    }
    this.stack[top] = kind;
    this.stack[top + 1] = second;
    this.stack[top + 2] = third;
    this.stack[top + 3] = fourth;
    this.frames++;
  }
}

function codePointBefore(text: string, position: number): number | undefined {
  if (position === 0) return undefined;
  const unit = text.charCodeAt(position - 1);
  return isLowSurrogate(unit) && position > 1 && isHighSurrogate(text.charCodeAt(position - 2))
    ? text.codePointAt(position - 2)
    : unit;
}
