import { characterSet, type CharacterSet } from './character_set.js';
import { parsePattern, type PatternNode } from './parser.js';

/** What an instruction does; its operands are `x`, `y` and `z`. */
export const enum Op {
  /** Takes the code point x. */
  Char,
  /** Takes a code point of the set x. */
  Set,
  /** Takes as many of the set x as there are, from y to z (−1: any number), and fewer if what follows wants that. */
  Repeat,
  /** Goes on at x, and if that fails at y. */
  Split,
  /** Goes on at x. */
  Jump,
  /** Goes on if the code point ahead is in the set x; with z & 1 behind; with z & 2 if it is not, or there is none. */
  LookAtOne,
  /** Goes on at x if what follows this instruction leads to LookEnd; with z & 2 if it does not. */
  Look,
  LookEnd,
  Match,
}

/** Instructions for a matcher; Split and Repeat can be returned to, and are numbered for that in `place`. */
export interface PatternProgram {
  ops: Uint8Array;
  x: Int32Array;
  y: Int32Array;
  z: Int32Array;
  /** The number of a Split or Repeat among these; −1 for others. */
  place: Int32Array;
  places: number;
  sets: CharacterSet[];
}

const MAX_SOURCE = 1 << 14;
const MAX_INSTRUCTIONS = 1 << 12;
const MAX_SETS = 256;

/**
 * Compiles the source of a regular expression with the flag u. Throws SyntaxError where it is too long, or holds what
 * tokenizers have no use for: back-references, looks behind at more than one character.
 */
export function compilePattern(source: string): PatternProgram {
  if (source.length > MAX_SOURCE)
    throw new SyntaxError(`It has ${source.length} characters; at most ${MAX_SOURCE} are expected`);
  return new Compiler().compile(parsePattern(source));
}

class Compiler {
  private readonly code: Array<[op: Op, x: number, y: number, z: number]> = [];
  private readonly sets: CharacterSet[] = [];
  private readonly setIndex = new Map<string, number>();

  compile(node: PatternNode): PatternProgram {
    this.node(node);
    this.emit(Op.Match);
    const length = this.code.length;
    const program = {
      ops: new Uint8Array(length),
      x: new Int32Array(length),
      y: new Int32Array(length),
      z: new Int32Array(length),
      place: new Int32Array(length).fill(-1),
    };
    let places = 0;
    for (const [index, [op, x, y, z]] of this.code.entries()) {
      program.ops[index] = op;
      program.x[index] = x;
      program.y[index] = y;
      program.z[index] = z;
      if (op === Op.Split || op === Op.Repeat) program.place[index] = places++;
    }
    return { ...program, places, sets: this.sets };
  }

  private node(node: PatternNode): void {
    switch (node.kind) {
      case 'char':
        this.emit(Op.Char, node.code);
        return;
      case 'set':
        this.emit(Op.Set, this.set(node.source));
        return;
      case 'sequence':
        for (const part of node.parts) this.node(part);
        return;
      case 'choice':
        this.choice(node.parts);
        return;
      case 'repeat':
        this.repeat(node);
        return;
      case 'look':
        this.look(node);
    }
  }

  private choice(parts: PatternNode[]): void {
    const ends: number[] = [];
    for (const [index, part] of parts.entries()) {
      if (index === parts.length - 1) {
        this.node(part);
        break;
      }
      const split = this.emit(Op.Split, this.code.length + 1);
      this.node(part);
      ends.push(this.emit(Op.Jump));
      this.code[split]![2] = this.code.length;
    }
    for (const end of ends) this.code[end]![1] = this.code.length;
  }

  private repeat({ part, min, max, lazy }: PatternNode & { kind: 'repeat' }): void {
    const one = single(part);
    if (one !== undefined && !lazy) {
      this.emit(Op.Repeat, this.set(one), Math.min(min, 0x7fffffff), max === Infinity ? -1 : Math.min(max, 0x7fffffff));
      return;
    }
    for (let i = 0; i < min; i++) this.node(part);
    const splits: number[] = [];
    const enter = (): number => {
      const split = this.emit(Op.Split, this.code.length + 1, this.code.length + 1);
      splits.push(split);
      return split;
    };
    if (max === Infinity) {
      const split = enter();
      this.node(part);
      this.emit(Op.Jump, split);
    } else {
      for (let i = min; i < max; i++) {
        enter();
        this.node(part);
      }
    }
    // Each Split leads to the end of the whole repetition; a lazy one tries that first.
    for (const split of splits) this.code[split]![lazy ? 1 : 2] = this.code.length;
  }

  private look({ part, behind, negative }: PatternNode & { kind: 'look' }): void {
    const one = single(part);
    const kind = (behind ? 1 : 0) | (negative ? 2 : 0);
    if (one !== undefined) {
      this.emit(Op.LookAtOne, this.set(one), 0, kind);
      return;
    }
    if (behind) throw new SyntaxError('It looks behind at more than one character');
    const look = this.emit(Op.Look, 0, 0, kind);
    this.node(part);
    this.emit(Op.LookEnd);
    this.code[look]![1] = this.code.length;
  }

  private set(source: string): number {
    let index = this.setIndex.get(source);
    if (index === undefined) {
      if (this.sets.length >= MAX_SETS)
        throw new SyntaxError(`It has more than ${MAX_SETS} different classes of characters`);
      this.setIndex.set(source, (index = this.sets.push(characterSet(source)) - 1));
    }
    return index;
  }

  private emit(op: Op, x = 0, y = 0, z = 0): number {
    if (this.code.length >= MAX_INSTRUCTIONS)
      throw new SyntaxError(`It unfolds to more than ${MAX_INSTRUCTIONS} instructions`);
    return this.code.push([op, x, y, z]) - 1;
  }
}

/** The source of a node that takes exactly one code point, whatever follows it; undefined for others. */
function single(node: PatternNode): string | undefined {
  switch (node.kind) {
    case 'char':
      return `\\u{${node.code.toString(16)}}`;
    case 'set':
      return node.source;
    case 'choice': {
      const parts = node.parts.map(single);
      return parts.includes(undefined) ? undefined : `(?:${parts.join('|')})`;
    }
    case 'sequence': {
      // Looks ahead at one character, then a part that takes one: the intersection of their sets.
      const last = node.parts.at(-1);
      const member = last && single(last);
      const looks = node.parts
        .slice(0, -1)
        .map((part) => (part.kind === 'look' && !part.behind ? lookAtOne(part) : undefined));
      return member === undefined || looks.includes(undefined) ? undefined : `(?:${looks.join('')}${member})`;
    }
    default:
      return undefined;
  }
}

function lookAtOne({ part, negative }: PatternNode & { kind: 'look' }): string | undefined {
  const one = single(part);
  return one === undefined ? undefined : `(?${negative ? '!' : '='}${one})`;
}
