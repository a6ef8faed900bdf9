import { CqilError } from '../errors.js';
import { expectOption, readArgument } from '../util/options.js';

export interface CallOptions {
  /**
   * Stops the call within one slice of tokens; it then rejects with ABORTED and `position` counts the slices that were
   * done.
   */
  signal?: AbortSignal;
}

export interface ShortlistOptions extends CallOptions {
  /**
   * Begins to append the likeliest token at once, before the caller has seen the list. A call that appends just that
   * token next, with the same `count`, finds it done or under way; any other call stops it: on the CPU after a stage,
   * on a GPU after the token. For loops that mostly take the likeliest token.
   */
  ahead?: boolean;
}

/** A checked copy of token ids; throws INVALID_ARGUMENT, or CONTEXT_OVERFLOW when there are more than `limit`. */
export function toTokens(ids: ArrayLike<number>, vocabSize: number, limit: number): Int32Array {
  return readArgument('The tokens', () => {
    const expected = 'an array of token ids, at least one';
    const length = typeof ids === 'object' && ids !== null ? ids.length : 0;
    expectOption('The tokens', ids, Number.isSafeInteger(length) && length > 0, expected);
    if (length > limit) throw overflow(length, limit, 0);
    const tokens = new Int32Array(length);
    for (let i = 0; i < length; i++) {
      const id = ids[i]!;
      expectOption(
        `Token ${i}`,
        id,
        Number.isInteger(id) && id >= 0 && id < vocabSize,
        `an integer from 0 to ${vocabSize - 1}`,
      );
      tokens[i] = id;
    }
    return tokens;
  });
}

export function overflow(count: number, contextLength: number, position: number): CqilError {
  return new CqilError(
    'CONTEXT_OVERFLOW',
    `${count} tokens at position ${position} end at ${position + count}; expected at most the context's ` +
      `${contextLength}.`,
  );
}
