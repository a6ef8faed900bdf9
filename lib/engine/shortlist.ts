/** Most entries of a shortlist, as native/backend/backend.h has it. */
export const MAX_SHORTLIST = 64;

/** What is kept of the logits after a token where only the likeliest tokens matter. */
export interface Shortlist {
  /** The tokens of the highest logits, highest first, ties by lower id. */
  ids: Int32Array;
  /** Their logits. */
  logits: Float32Array;
  /**
   * log(sum(exp(logit))) over all logits, natural: what a logit is above its log-probability. NaN when a logit is NaN
   * or Infinity.
   */
  logSumExp: number;
}
