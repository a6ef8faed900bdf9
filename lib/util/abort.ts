import { CqilError } from '../errors.js';
import { readArgument } from './options.js';

// A signal is whatever has the shape of one: it may be of another realm or library, or have getters and methods that
// throw. Nothing but a coded error comes from it, and nothing at all once work is under way.

/** The error of work whose signal has fired. */
export function abortError(signal: AbortSignal): CqilError {
  let cause: unknown;
  try {
    cause = signal.reason;
  } catch (error) {
    cause = error;
  }
  return new CqilError('ABORTED', 'The work was aborted by its signal before it was done.', { cause });
}

/** Throws ABORTED; INVALID_ARGUMENT for a signal that cannot be read. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal && readArgument('The signal', () => signal.aborted)) throw abortError(signal);
}

interface Waiting {
  callbacks: Set<{ call: () => void }>;
  /** What the signal calls. */
  listener: () => void;
}

const waiting = new WeakMap<AbortSignal, Waiting>();

/**
 * Calls back once, when the signal fires; returns a function that unsubscribes. Does nothing without a signal. The
 * callback must not throw. Throws INVALID_ARGUMENT for a signal that refuses a listener: call it before work begins.
 *
 * A signal gets one listener, however many calls it is given to: Node.js warns of a leak at more than ten.
 */
export function onAbort(signal: AbortSignal | undefined, callback: () => void): () => void {
  if (!signal) return () => undefined;
  const { callbacks, listener } = waiting.get(signal) ?? listen(signal);
  const entry = { call: callback };
  callbacks.add(entry);
  return () => {
    if (!callbacks.delete(entry) || callbacks.size > 0) return;
    waiting.delete(signal);
    try {
      signal.removeEventListener('abort', listener);
    } catch {
      // The listener is kept, and has nobody left to call.
    }
  };
}

/**
 * Waits for a promise. Rejects with ABORTED when the signal fires first; the work behind the promise goes on, so this
 * suits work that other callers wait for too.
 */
export async function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  promise.catch(() => undefined); // nobody waits for it where the signal comes first
  throwIfAborted(signal);
  let forget = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => (forget = onAbort(signal, () => reject(abortError(signal)))));
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    forget();
  }
}

function listen(signal: AbortSignal): Waiting {
  const callbacks: Waiting['callbacks'] = new Set();
  const listener = (): void => {
    waiting.delete(signal);
    const entries = [...callbacks];
    callbacks.clear();
    for (const { call } of entries) call();
  };
  const added = { callbacks, listener };
  readArgument('The signal', () => signal.addEventListener('abort', listener, { once: true }));
  waiting.set(signal, added);
  return added;
}
