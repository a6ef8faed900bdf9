import type { AddedToken } from './tokenizer_json.js';

const WORD_CHARACTER = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]/u;

interface TrieNode {
  /** By UTF-16 code unit. */
  next: Map<number, TrieNode>;
  /** The token that ends here. */
  token?: AddedToken;
}

/** Finds added tokens in text: the leftmost, and the longest of those that start there. */
export class AddedTokenSplitter {
  private readonly root: TrieNode = { next: new Map() };

  /** `tokens`: what stands in the text, and the token it is. */
  constructor(tokens: Iterable<readonly [content: string, token: AddedToken]>) {
    for (const [content, token] of tokens) if (content !== '') this.insert(content, token);
  }

  /** The text's added tokens and the non-empty stretches between them, in order. */
  *split(text: string): Generator<string | AddedToken> {
    let start = 0;
    let i = 0;
    while (i < text.length) {
      const found = this.longestAt(text, i);
      if (!found || (found.token.single_word && touchesWord(text, i, found.end))) {
        i++;
        continue;
      }
      const before = text.slice(start, i);
      const stretch = found.token.lstrip ? before.trimEnd() : before;
      if (stretch !== '') yield stretch;
      yield found.token;
      start = found.token.rstrip ? skipWhitespace(text, found.end) : found.end;
      i = start;
    }
    if (start < text.length) yield text.slice(start);
  }

  private insert(content: string, token: AddedToken): void {
    let node = this.root;
    for (let i = 0; i < content.length; i++) {
      const unit = content.charCodeAt(i);
      let child = node.next.get(unit);
      if (!child) node.next.set(unit, (child = { next: new Map() }));
      node = child;
    }
    node.token = token;
  }

  private longestAt(text: string, start: number): { token: AddedToken; end: number } | undefined {
    let longest: { token: AddedToken; end: number } | undefined;
    let node = this.root.next.get(text.charCodeAt(start));
    for (let end = start + 1; node; end++) {
      if (node.token) longest = { token: node.token, end };
      node = node.next.get(text.charCodeAt(end));
    }
    return longest;
  }
}

function skipWhitespace(text: string, start: number): number {
  return text.length - text.slice(start).trimStart().length;
}

function touchesWord(text: string, start: number, end: number): boolean {
  const before = Array.from(text.slice(Math.max(0, start - 2), start)).at(-1);
  const after = text.codePointAt(end);
  return (before !== undefined && WORD_CHARACTER.test(before)) || (after !== undefined && WORD_CHARACTER.test(String.fromCodePoint(after)));
}
