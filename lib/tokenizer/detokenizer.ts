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

/** A detokenizer over a map from ids to bytes, with this many leading spaces dropped. */
export function createDetokenizer(bytesOf: (id: number) => Uint8Array, leadingSpaces: number): Detokenizer {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  let spaces = new LeadingSpaces(leadingSpaces);
  return {
    push: (id) => decoder.decode(spaces.drop(bytesOf(id)), { stream: true }),
    flush: () => {
      spaces = new LeadingSpaces(leadingSpaces);
      return decoder.decode();
    },
  };
}

/** The text of all ids at once. */
export function decodeBytes(parts: Iterable<Uint8Array>, leadingSpaces: number): string {
  const spaces = new LeadingSpaces(leadingSpaces);
  const kept: Uint8Array[] = [];
  for (const part of parts) kept.push(spaces.drop(part));
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(Buffer.concat(kept));
}
