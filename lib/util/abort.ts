import { CqilError } from '../errors.js';

/** The error of work whose signal has fired. */
export function abortError(signal: AbortSignal): CqilError {
  return new CqilError('ABORTED', 'The work was aborted by its signal before it was done.', { cause: signal.reason });
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortError(signal);
}

interface Waiting {
  callbacks: Set<{ call: () => void }>;
  listener: () => void;
}

const waiting = new WeakMap<AbortSignal, Waiting>();

/**
 * Calls back once, when the signal fires; returns a function that unsubscribes. Does nothing without a signal. The
 * callback must not throw.
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
    signal.removeEventListener('abort', listener);
  };
}

/**
 * Waits for a promise. Rejects with ABORTED when the signal fires first; the work behind the promise goes on, so this
 * suits work that other callers wait for too.
 */
export async function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
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
  waiting.set(signal, added);
  signal.addEventListener('abort', listener, { once: true });
  return added;
}
