import type { Shortlist } from '../../lib/engine/shortlist.js';

/** The shortlist of a row of logits, the slow and obvious way. */
export function shortlistOf(logits: Float32Array, count: number): Shortlist {
  const ids = Int32Array.from(logits.keys())
    .sort((a, b) => logits[b]! - logits[a]! || a - b)
    .slice(0, count);
  const highest = logits[ids[0]!]!;
  return {
    ids,
    logits: Float32Array.from(ids, (id) => logits[id]!),
    logSumExp: highest + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - highest), 0)),
  };
}
