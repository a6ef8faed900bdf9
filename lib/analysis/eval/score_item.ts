import { commonPrefix } from '../../util/common_prefix.js';
import type { Pace } from '../../util/pace.js';
import type { Session } from '../../session/session.js';
import type { EncodedItem, Sequence } from './encode_item.js';
import { LOGITS_SLICE, nextTokens } from './next_tokens.js';

/** What a plan made of one item. */
export interface ItemScore {
  /** Log-likelihood of each answer given its context, nats. */
  logLikelihoods: number[];
  /** For a completion: whether every token of it is the most likely one. */
  greedy?: boolean;
}

/** Scores every answer; what all sequences begin with is computed once. Leaves the session's context filled. */
export async function scoreAnswers(
  session: Session,
  { sequences }: EncodedItem,
  signal: AbortSignal | undefined,
): Promise<ItemScore> {
  // The token before the first scored one has to be computed with the answer: its logits score it.
  const shared = Math.min(commonPrefix(sequences.map(({ ids }) => ids)), ...sequences.map(({ start }) => start - 1));
  session.truncate(0);
  if (shared > 0) await session.prefill(sequences[0]!.ids.slice(0, shared), { signal });
  const logLikelihoods: number[] = [];
  for (const { ids, start } of sequences) {
    session.truncate(shared);
    const scores = await session.score(ids.slice(shared), { signal });
    // Entry i is of the token at shared + i + 1.
    logLikelihoods.push(scores.subarray(start - shared - 1).reduce((sum, score) => sum + score, 0));
  }
  return { logLikelihoods };
}

/** Scores the continuation of a completion, and says whether greedy decoding gives it. */
export async function scoreCompletion(
  session: Session,
  { sequences }: EncodedItem,
  pace: Pace,
  signal: AbortSignal | undefined,
): Promise<ItemScore> {
  const { ids, start } = sequences[0] as Sequence;
  session.truncate(0);
  if (start > 1) await session.prefill(ids.slice(0, start - 1), { signal });
  let [sum, greedy] = [0, true];
  for (let from = start - 1; from + 1 < ids.length; from += LOGITS_SLICE) {
    const targets = ids.slice(from + 1, from + 1 + LOGITS_SLICE);
    const rows = await nextTokens(session, ids.slice(from, from + targets.length), pace, signal);
    for (const [i, target] of targets.entries()) {
      sum += rows[i]!.logProb(target);
      greedy &&= rows[i]!.top === target;
    }
  }
  return { logLikelihoods: [sum], greedy };
}
