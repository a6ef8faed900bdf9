import { quantile } from '../eval/statistics.js';
import type { Model } from '../../model/model.js';
import type { Plan } from '../../plan/plan.js';
import type { Session } from '../../session/session.js';
import type { DecodePosition } from './work.js';

/** One way to compute one token. */
export interface Decode {
  plan: Plan;
  execution: 'wide' | 'lanes';
  at: DecodePosition;
}

export interface TimingOptions {
  /** About how long to time, prompts aside. */
  seconds: number;
  signal?: AbortSignal;
  onProgress?: (share: number) => void;
}

/** Timings of a decode are worth little below, and gain little above. */
const ROUNDS = { least: 5, most: 1000 };
/** Tokens per turn; the one before them, which is not timed, brings back what the others displaced from the caches. */
const TOKENS_PER_TURN = 3;

/**
 * Times decodes at fixed positions, all in turn, round after round, so that what else the machine does falls on all of
 * them. Token ids change nothing about the time.
 *
 * @returns milliseconds per token, [decodes][rounds · tokens]. Rejects with ABORTED.
 */
export async function timeDecodes(
  model: Model,
  decodes: readonly Decode[],
  { seconds, signal, onProgress }: TimingOptions,
): Promise<number[][]> {
  const sessions: Session[] = [];
  try {
    for (const { plan, execution, at } of decodes) {
      const session = model.createSession({ plan, execution, contextLength: at.position + 1 });
      sessions.push(session);
      if (at.position > 0) await session.prefill(new Int32Array(at.position), { signal });
    }
    const timings = decodes.map(() => [] as number[]);
    const start = performance.now();
    const spent = (): number => (performance.now() - start) / 1000 / seconds;
    for (let round = 0; round < ROUNDS.least || (round < ROUNDS.most && spent() < 1); round++) {
      for (const [i, { at }] of decodes.entries()) {
        const session = sessions[i]!;
        for (let turn = 0; turn <= TOKENS_PER_TURN; turn++) {
          const before = performance.now();
          // A score of the last token alone is of nothing: it computes all but logits.
          await (at.logits ? session.decode(0, { signal }) : session.score([0], { signal }));
          if (turn > 0) timings[i]!.push(performance.now() - before);
          session.truncate(at.position);
        }
      }
      onProgress?.(Math.min(1, Math.max(spent(), (round + 1) / ROUNDS.most)));
    }
    return timings;
  } finally {
    for (const session of sessions) session.close();
  }
}

/** What one number says about timings; the benchmark's too. */
export function typical(timings: readonly number[]): number {
  return quantile(timings, 0.5);
}
