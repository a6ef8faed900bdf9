import type { GgufStrings } from './types.js';

/**
 * An array of strings as it stands in a GGUF file, each in UTF-8 after its 64-bit length. A vocabulary's take longer to decode than all else
 * in a header to read, and its merges may never be wanted.
 */
export class EncodedStrings implements GgufStrings {
  /** `parts` hold whole strings, `length` in all, each shorter than 2³² bytes. */
  constructor(readonly length: number, private readonly parts: readonly Buffer[]) {}

  decode(): string[] {
    return [...this];
  }

  *[Symbol.iterator](): Iterator<string> {
    for (const part of this.parts) {
      for (let at = 0; at < part.length; ) {
        const start = at + 8;
        at = start + part.readUInt32LE(at);
        yield part.toString('utf8', start, at);
      }
    }
  }
}
