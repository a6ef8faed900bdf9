import { CqilError } from './errors.js';

/** The error of work whose signal has fired. */
export function abortError(signal: AbortSignal): CqilError {
  return new CqilError('ABORTED', 'The work was aborted by its signal before it was done.', { cause: signal.reason });
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortError(signal);
}
