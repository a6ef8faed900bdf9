/**
 * What went wrong, for a program to switch on. The message says it for a person: what was found, what was expected.
 *
 * - `INVALID_ARGUMENT`: an option or argument of a call.
 * - `INVALID_PLAN`: a plan that is malformed or does not fit the model.
 * - `FILE_NOT_FOUND`: a path that does not exist or cannot be read.
 * - `FILE_CHANGED`: a file of the weights was written to or shortened while the model was in use.
 * - `INVALID_CHECKPOINT`: a model file that is truncated, corrupted or contradicts itself.
 * - `UNSUPPORTED_MODEL`: a sound model file that asks for something this version does not compute.
 * - `INVALID_TOKENIZER`: a tokenizer that is missing, malformed or of an unknown kind.
 * - `BACKEND_UNAVAILABLE`: the backend or execution that was asked for cannot run on this machine.
 * - `OUT_OF_MEMORY`: memory for weights, caches or scratch could not be had.
 * - `NOT_FINITE`: logits or outputs of layers are NaN or infinite, because weights are, or because keys or values are
 *   too large for the format of the KV cache.
 * - `CONTEXT_OVERFLOW`: more tokens than the session's context holds.
 * - `DISPOSED`: a model or session was used after it was closed.
 * - `GOAL_UNREACHABLE`: a search found no plan that meets its goal.
 * - `ABORTED`: an AbortSignal fired; `cause` is the signal's reason. The error's `name` is `AbortError`, as in Node's
 *   own functions.
 * - `RANK_LOST`: one of the processes that compute a model together has ended, hangs or cannot be reached. The model can
 *   only be disposed of.
 * - `NATIVE_ADDON`: the native addon is missing or cannot be loaded.
 * - `INTERNAL`: a fault of cqil's own.
 */
export type ErrorCode =
  | 'INVALID_ARGUMENT'
  | 'INVALID_PLAN'
  | 'FILE_NOT_FOUND'
  | 'FILE_CHANGED'
  | 'INVALID_CHECKPOINT'
  | 'UNSUPPORTED_MODEL'
  | 'INVALID_TOKENIZER'
  | 'BACKEND_UNAVAILABLE'
  | 'OUT_OF_MEMORY'
  | 'NOT_FINITE'
  | 'CONTEXT_OVERFLOW'
  | 'DISPOSED'
  | 'GOAL_UNREACHABLE'
  | 'ABORTED'
  | 'RANK_LOST'
  | 'NATIVE_ADDON'
  | 'INTERNAL';

/**
 * The only error class cqil throws. Its `name` is `CqilError`, except for ABORTED: there it is `AbortError`, by which
 * code that knows nothing of cqil recognizes an abort.
 */
export class CqilError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = code === 'ABORTED' ? 'AbortError' : 'CqilError';
    this.code = code;
  }
}
