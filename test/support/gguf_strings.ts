import type { GgufStrings } from '../../lib/checkpoint/types.js';

/** Strings as a GGUF file's metadata has them. */
export function ggufStrings(strings: string[]): GgufStrings {
  return { length: strings.length, [Symbol.iterator]: () => strings.values() };
}
