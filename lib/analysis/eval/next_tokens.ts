import type { Pace } from '../../util/pace.js';
import type { Session } from '../../session/session.js';
import { NextToken } from './divergence.js';

/** Tokens the engine gives the logits of at once. */
export const LOGITS_SLICE = 32;

/** Appends 1 to LOGITS_SLICE tokens to a session; what comes next after each. */
export async function nextTokens(
  session: Session,
  ids: number[],
  pace: Pace,
  signal: AbortSignal | undefined,
): Promise<NextToken[]> {
  const logits = await session.logits(ids, { signal });
  const vocabSize = logits.length / ids.length;
  const rows: NextToken[] = [];
  for (let i = 0; i < ids.length; i++) {
    rows.push(new NextToken(logits.subarray(i * vocabSize, (i + 1) * vocabSize)));
    await pace.pause();
  }
  return rows;
}
