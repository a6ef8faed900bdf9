import { CqilError } from '../../errors.js';
import { counted } from '../../util/count.js';

/**
 * How a text is cut into windows, each computed from an empty context, and which tokens are scored.
 *
 * - `gptq`: windows that do not overlap; all tokens but the first of a window. A shorter last window counts if it has
 *   two tokens.
 * - `llamacpp`: whole windows only, the first token replaced by BOS if the tokenizer puts one before a text; of n
 *   tokens those from index ⌊n/2⌋ + 1 on. As llama.cpp's perplexity tool defines it.
 */
export type Protocol = 'gptq' | 'llamacpp';

export const PROTOCOLS: readonly Protocol[] = ['gptq', 'llamacpp'];

/** One run of tokens from an empty context. Tokens from index `firstScored` on are scored, each from all before it. */
export interface Window {
  ids: number[];
  firstScored: number;
}

const SHORTEST: Record<Protocol, number> = { gptq: 2, llamacpp: 3 };

/**
 * Cuts token ids into windows of `size`.
 *
 * @param bos what the tokenizer puts before a text, if it does.
 * @throws CqilError INVALID_ARGUMENT for a size no token of which would be scored, or a text too short for one window.
 */
export function textWindows(
  ids: readonly number[],
  size: number,
  protocol: Protocol,
  bos: number | undefined,
): Window[] {
  if (size < SHORTEST[protocol])
    throw new CqilError(
      'INVALID_ARGUMENT',
      `The window is ${size} tokens, expected at least ${SHORTEST[protocol]} for the protocol ${protocol}.`,
    );
  const least = protocol === 'gptq' ? 2 : size;
  if (ids.length < least) {
    const needed =
      protocol === 'gptq' ? `at least ${least}` : `at least one whole window of ${size} for the protocol llamacpp`;
    throw new CqilError('INVALID_ARGUMENT', `The text has ${counted(ids.length, 'token')}, expected ${needed}.`);
  }
  const windows: Window[] = [];
  for (let from = 0; from + (protocol === 'gptq' ? 2 : size) <= ids.length; from += size) {
    const window = ids.slice(from, from + size);
    if (protocol === 'llamacpp' && bos !== undefined) window[0] = bos;
    windows.push({ ids: window, firstScored: protocol === 'gptq' ? 1 : Math.floor(size / 2) + 1 });
  }
  return windows;
}
