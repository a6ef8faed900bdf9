/** A pattern as a tree. Groups are no nodes: nothing is captured. */
export type PatternNode =
  | { kind: 'char'; code: number }
  /** One code point of a class; `source` is its spelling in JavaScript. */
  | { kind: 'set'; source: string }
  | { kind: 'sequence'; parts: PatternNode[] }
  | { kind: 'choice'; parts: PatternNode[] }
  | { kind: 'repeat'; part: PatternNode; min: number; max: number; lazy: boolean }
  /** What stands ahead, or behind, is looked at and not taken. */
  | { kind: 'look'; part: PatternNode; behind: boolean; negative: boolean };

const MAX_NESTING = 64;

const LOOKS: ReadonlyArray<readonly [prefix: string, behind: boolean, negative: boolean]> = [
  ['(?=', false, false],
  ['(?!', false, true],
  ['(?<=', true, false],
  ['(?<!', true, true],
];
const CODE_POINT =
  /^(?:\\u\{[0-9A-Fa-f]+\}|\\u[Dd][89ABab][0-9A-Fa-f]{2}\\u[Dd][C-Fc-f][0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|\\c[A-Za-z])/;
const CLASS_ESCAPE = /^\\(?:[pP]\{[^}]*\}|[dDwWsS])/;
const SIMPLE_ESCAPE = /^\\[fnrtv0^$\\.*+?()[\]{}|/-]/;
const QUANTIFIER = /^(?:[*+?]|\{(\d+)(?:(,)(\d*))?\})/;

/**
 * Parses the source of a regular expression with the flag u. Throws SyntaxError for what a tokenizer has no use for:
 * back-references, boundaries that are not spelled as looks, and more than 64 groups in each other.
 */
export function parsePattern(source: string): PatternNode {
  return new Parser(source).parse();
}

class Parser {
  private at = 0;
  private depth = 0;

  constructor(private readonly source: string) {}

  parse(): PatternNode {
    const node = this.choice();
    if (this.at < this.source.length) throw new SyntaxError(`Unexpected ${this.source[this.at]} at ${this.at}`);
    return node;
  }

  private choice(): PatternNode {
    const parts = [this.sequence()];
    while (this.accept('|')) parts.push(this.sequence());
    return parts.length === 1 ? parts[0]! : { kind: 'choice', parts };
  }

  private sequence(): PatternNode {
    const parts: PatternNode[] = [];
    while (this.at < this.source.length && this.source[this.at] !== '|' && this.source[this.at] !== ')')
      parts.push(this.quantified());
    return parts.length === 1 ? parts[0]! : { kind: 'sequence', parts };
  }

  private quantified(): PatternNode {
    const part = this.atom();
    const quantifier = this.match(QUANTIFIER);
    if (!quantifier) return part;
    const [text, least, comma, most] = quantifier;
    const min = least === undefined ? (text === '+' ? 1 : 0) : Number(least);
    const max =
      least === undefined
        ? text === '?'
          ? 1
          : Infinity
        : comma === undefined
          ? min
          : most === ''
            ? Infinity
            : Number(most);
    return { kind: 'repeat', part, min, max, lazy: this.accept('?') };
  }

  private atom(): PatternNode {
    const look = LOOKS.find(([prefix]) => this.accept(prefix));
    if (look) {
      const [, behind, negative] = look;
      return { kind: 'look', part: this.group(), behind, negative };
    }
    if (this.match(/^\((?:\?:|\?<\w+>|(?!\?))/)) return this.group();
    switch (this.source[this.at]) {
      case '[':
        return this.characterClass();
      case '\\':
        return this.escape();
      case '.':
        return { kind: 'set', source: this.source[this.at++]! };
      case '^':
      case '$':
      case '*':
      case '+':
      case '?':
      case '(':
      case '{':
        throw new SyntaxError(`Unexpected ${this.source[this.at]} at ${this.at}`);
      default: {
        const code = this.source.codePointAt(this.at)!;
        this.at += code > 0xffff ? 2 : 1;
        return { kind: 'char', code };
      }
    }
  }

  /** What follows an opening parenthesis, up to the closing one. */
  private group(): PatternNode {
    if (++this.depth > MAX_NESTING) throw new SyntaxError(`Groups are nested more than ${MAX_NESTING} deep`);
    const node = this.choice();
    if (!this.accept(')')) throw new SyntaxError('A group does not end');
    this.depth--;
    return node;
  }

  private characterClass(): PatternNode {
    const start = this.at++;
    while (this.source[this.at] !== ']') {
      if (this.at >= this.source.length) throw new SyntaxError('A class does not end');
      this.at += this.source[this.at] === '\\' ? 2 : 1;
    }
    return { kind: 'set', source: this.source.slice(start, ++this.at) };
  }

  private escape(): PatternNode {
    const spelled = this.match(CLASS_ESCAPE);
    if (spelled) return { kind: 'set', source: spelled[0] };
    const [text] = this.match(CODE_POINT) ?? this.match(SIMPLE_ESCAPE) ?? [];
    if (text === undefined)
      throw new SyntaxError(`Unknown escape ${this.source.slice(this.at, this.at + 2)} at ${this.at}`);
    return { kind: 'set', source: text };
  }

  private accept(text: string): boolean {
    if (!this.source.startsWith(text, this.at)) return false;
    this.at += text.length;
    return true;
  }

  private match(pattern: RegExp): RegExpExecArray | null {
    // Quantifiers, escapes and the heads of groups are short.
    const found = pattern.exec(this.source.slice(this.at, this.at + 64));
    if (found) this.at += found[0].length;
    return found;
  }
}
