import type { GgufStrings } from './types.js';

/** An array of strings as it stands in a GGUF file, each in UTF-8 after its 64-bit length. */
export class EncodedStrings implements GgufStrings {
  /** `parts` hold whole strings, `length` in all, each shorter than 2³² bytes. */
  constructor(
    readonly length: number,
    private readonly parts: readonly Buffer[],
  ) {}

  *[Symbol.iterator](): Iterator<string> {
    for (const part of this.parts) {
      for (let at = 0; at < part.length;) {
        const start = at + 8;
        at = start + part.readUInt32LE(at);
        yield part.toString('utf8', start, at);
      }
    }
  }
}
