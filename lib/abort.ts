import { CqilError } from './errors.js';

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
 * Calls back once, when the signal fires; gives what takes that back. Does nothing without a signal. The callback must not throw.
 *
 * A signal gets one listener, however much work it is given to: Node.js takes more than ten for a leak and says so.
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

/** What a promise gives, or ABORTED when the signal fires first: for waiting for work that is not this signal's to stop. */
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
