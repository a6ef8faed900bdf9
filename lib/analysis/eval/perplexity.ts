import { CqilError } from '../../errors.js';
import type { Model } from '../../model/model.js';
import type { Execution } from '../../engine/native.js';
import type { Plan } from '../../plan/plan.js';
import { textWindows, type Protocol, type Window } from './windows.js';

/** Longer windows are only used when asked for. */
export const LONGEST_DEFAULT_WINDOW = 2048;

export interface Perplexity {
  /** Tokens scored. */
  tokens: number;
  /** Mean negative log-likelihood per scored token, nats. */
  nll: number;
  perplexity: number;
}

export interface MeasureOptions {
  execution?: Execution;
  signal?: AbortSignal;
  /** Counts tokens. */
  onProgress?: (done: number, total: number) => void;
}

/** Tokens per window unless it is given. */
export function defaultWindow(model: Model): number {
  return Math.min(model.config.contextLength, LONGEST_DEFAULT_WINDOW);
}

/**
 * The windows of a text for this model. Throws INVALID_ARGUMENT for a window it cannot hold, or a text too short for
 * one.
 */
export function modelWindows(model: Model, ids: readonly number[], size: number, protocol: Protocol): Window[] {
  if (size > model.config.contextLength) {
    throw new CqilError(
      'INVALID_ARGUMENT',
      `The window is ${size} tokens, expected at most the model's context length, ${model.config.contextLength}.`,
    );
  }
  const [first] = model.tokenizer.encode('');
  return textWindows(ids, size, protocol, first === model.tokenizer.bosTokenId ? first : undefined);
}

/**
 * Perplexity of a model with a plan over token ids, in windows of `window` tokens that do not overlap, each in a fresh
 * context. The first token of a window is context only.
 *
 * @throws CqilError INVALID_ARGUMENT for fewer than two tokens.
 */
export async function measurePerplexity(
  model: Model,
  plan: Plan,
  ids: readonly number[],
  window: number,
  options: MeasureOptions = {},
): Promise<Perplexity> {
  const windows = modelWindows(model, ids, window, 'gptq');
  const session = model.createSession({
    plan: await model.prepare(plan),
    execution: options.execution,
    contextLength: windows[0]!.ids.length,
  });
  try {
    let [sum, tokens, done] = [0, 0, 0];
    for (const { ids: slice } of windows) {
      const scores = await session.score(slice, { signal: options.signal });
      session.truncate(0);
      for (const score of scores) sum -= score;
      tokens += scores.length;
      done += slice.length;
      options.onProgress?.(done, ids.length);
    }
    const nll = sum / tokens;
    return { tokens, nll, perplexity: Math.exp(nll) };
  } finally {
    session.close();
  }
}
