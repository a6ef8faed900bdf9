import { CHARACTERS_AT_ONCE } from './patterns/pattern.js';
import type { AddedToken } from './tokenizer_json.js';
import { insertText, type TrieNode } from './trie.js';

// Some published models do not call their `<|im_start|>` special.
const CONTROL_FORM = /^<[|｜].*[|｜]>$/s;

/**
 * Whether a token is a control token, which nothing in a user's text may become: the files call it special, or it is
 * written as such tokens are.
 */
export function isControl({ special, content }: AddedToken): boolean {
  return special || CONTROL_FORM.test(content);
}

const WORD_CHARACTER = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]/u;

/** Finds added tokens in text: the leftmost, and the longest of those that start there. */
export class AddedTokenSplitter {
  private readonly root: TrieNode<AddedToken> = { next: new Map() };

  /** Adds a token to look for. `content`: its text, as it stands in the texts that are split. */
  insert(content: string, token: AddedToken): void {
    if (content !== '') insertText(this.root, content, token);
  }

  /**
   * The text's added tokens and the non-empty stretches between them, in order; undefined marks a place to pause at.
   */
  *split(text: string): Generator<string | AddedToken | undefined> {
    let start = 0;
    let i = 0;
    let looked = 0;
    while (i < text.length) {
      if (looked > CHARACTERS_AT_ONCE) {
        yield undefined;
        looked = 0;
      }
      const found = this.longestAt(text, i);
      looked += found?.looked ?? 1;
      if (!found?.token || (found.token.single_word && touchesWord(text, i, found.end))) {
        i++;
        continue;
      }
      const { token, end } = found;
      const before = text.slice(start, i);
      const stretch = token.lstrip ? before.slice(0, spaceBefore(before)) : before;
      if (stretch !== '') yield stretch;
      yield token;
      start = token.rstrip ? skipWhitespace(text, end) : end;
      i = start;
    }
    if (start < text.length) yield text.slice(start);
  }

  /**
   * The longest token at `start`, where it ends, and how many characters were looked at. `token` is undefined if no
   * token is there; the result is, if none even begins with this character.
   */
  private longestAt(
    text: string,
    start: number,
  ): { token: AddedToken | undefined; end: number; looked: number } | undefined {
    let node = this.root.next.get(text.charCodeAt(start));
    if (!node) return undefined;
    let token: AddedToken | undefined;
    let end = start;
    let at = start + 1;
    for (; node; at++) {
      if (node.value) [token, end] = [node.value, at];
      node = node.next.get(text.charCodeAt(at));
    }
    return { token, end, looked: at - start };
  }
}

/** Rust's whitespace, as the reference library has it: unlike `trim`, it knows U+0085 and leaves U+FEFF. */
const WHITE_SPACE = /\p{White_Space}/u;

function skipWhitespace(text: string, start: number): number {
  let end = start;
  while (end < text.length && WHITE_SPACE.test(text[end]!)) end++;
  return end;
}

/** Where the whitespace at the end of a text begins. */
function spaceBefore(text: string): number {
  let start = text.length;
  while (start > 0 && WHITE_SPACE.test(text[start - 1]!)) start--;
  return start;
}

function touchesWord(text: string, start: number, end: number): boolean {
  const before = Array.from(text.slice(Math.max(0, start - 2), start)).at(-1);
  const after = text.codePointAt(end);
  return (
    (before !== undefined && WORD_CHARACTER.test(before)) ||
    (after !== undefined && WORD_CHARACTER.test(String.fromCodePoint(after)))
  );
}
