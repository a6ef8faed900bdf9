/** How ids become text. */
export interface DecodeOptions {
  /** Leave out control tokens such as `</s>`. Default true. */
  skipSpecialTokens?: boolean;
}

export interface DetokenizerOptions extends DecodeOptions {
  /** The ids continue other text, so a leading space belongs to it and stays. Default false. */
  continues?: boolean;
}

/**
 * Turns ids into text one at a time. What `push` and `flush` return, joined, is what `decode` gives for all the ids.
 */
export interface Detokenizer {
  /**
   * The text that this id completes; empty while a character is still missing bytes. Throws INVALID_ARGUMENT on a bad
   * id.
   */
  push(id: number): string;
  /** What is left at the end: bytes that never became a character, as U+FFFD. The next push begins a new text. */
  flush(): string;
}

const SPACE = 0x20;

/** Drops up to a number of spaces at the very start of a text that arrives in parts. */
class LeadingSpaces {
  constructor(private left: number) {}

  drop(bytes: Uint8Array): Uint8Array {
    let start = 0;
    while (start < bytes.length && this.left > 0) {
      if (bytes[start] === SPACE) {
        start++;
        this.left--;
      } else {
        this.left = 0;
      }
    }
    return start === 0 ? bytes : bytes.subarray(start);
  }
}

/** The bytes of an id, which depend on whether it begins the text; undefined for one that is left out. */
export type BytesOf = (id: number, first: boolean) => Uint8Array | undefined;

/**
 * A detokenizer over a map from ids to bytes, with this many leading spaces dropped. `begins`: its first id begins a
 * text.
 */
export function createDetokenizer(bytesOf: BytesOf, leadingSpaces: number, begins: boolean): Detokenizer {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  let spaces = new LeadingSpaces(leadingSpaces);
  let first = begins;
  return {
    push: (id) => {
      const bytes = bytesOf(id, first);
      if (bytes === undefined) return '';
      first = false;
      return decoder.decode(spaces.drop(bytes), { stream: true });
    },
    flush: () => {
      spaces = new LeadingSpaces(leadingSpaces);
      first = begins;
      return decoder.decode();
    },
  };
}

/** The text of all ids at once. */
export function decodeBytes(ids: Iterable<number>, bytesOf: BytesOf, leadingSpaces: number): string {
  const spaces = new LeadingSpaces(leadingSpaces);
  const kept: Uint8Array[] = [];
  for (const id of ids) {
    const bytes = bytesOf(id, kept.length === 0);
    if (bytes) kept.push(spaces.drop(bytes));
  }
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(Buffer.concat(kept));
}
