import { quantile } from '../eval/statistics.js';
import { watchBusy } from './busy.js';
import type { Model } from '../../model/model.js';
import type { Execution } from '../../engine/native.js';
import type { Plan } from '../../plan/plan.js';
import type { Shortlist } from '../../engine/shortlist.js';

/** One way to run a model, to be timed against others. */
export interface Contender {
  plan: Plan;
  execution: Execution;
}

export interface Timing {
  /**
   * Milliseconds per decoded token: the median over all tokens of all rounds, the least and the greatest of the rounds'
   * medians.
   */
  msPerToken: { min: number; median: number; max: number };
  /** The medians of the rounds, in order. Contenders of one call had round i at the same time. */
  roundMsPerToken: number[];
  /** Median over the rounds. */
  prefillTokensPerSecond: number;
}

export interface Workload {
  promptTokens: number;
  /** Tokens decoded one by one after the prompt. */
  tokens: number;
  /** Rounds; in each, every contender runs once. */
  repeat: number;
}

/**
 * Times prefill and decode of several contenders on one model. The rounds are interleaved (A B A B …), so that what
 * else the machine does falls on all of them; one short round before them is not counted. After a prompt of random ids,
 * which change nothing about the time, tokens are decoded as a generation at temperature 0 does.
 */
export async function timeContenders(
  model: Model,
  contenders: Contender[],
  { promptTokens, tokens, repeat }: Workload,
  { signal, onProgress }: { signal?: AbortSignal; onProgress?: (done: number, total: number) => void } = {},
): Promise<Timing[]> {
  const prompt = randomIds(promptTokens, model.config.vocabSize);
  for (const { plan } of contenders) await model.prepare(plan);
  const entries = contenders.map(({ plan, execution }) => ({
    session: model.createSession({ plan, execution, contextLength: promptTokens + tokens }),
    decodeMs: [] as number[],
    prefillMs: [] as number[],
  }));
  try {
    for (const { session } of entries) {
      await session.prefill(prompt, { signal });
      await session.shortlist(prompt.slice(-1), 1, { signal });
    }
    for (let round = 0; round < repeat; round++) {
      for (const [i, { session, decodeMs, prefillMs }] of entries.entries()) {
        session.truncate(0);
        let list: Shortlist;
        const append = async (ids: number[], more: boolean): Promise<void> =>
          void (list = await session.shortlist(ids, 1, { ahead: more, signal }));
        prefillMs.push(await elapsed(() => append(prompt, tokens > 0)));
        for (let left = tokens - 1; left >= 0; left--)
          decodeMs.push(await elapsed(() => append([list.ids[0]!], left > 0)));
        onProgress?.(round * entries.length + i + 1, repeat * entries.length);
      }
    }
  } finally {
    for (const { session } of entries) session.close();
  }
  return entries.map(({ decodeMs, prefillMs }) => {
    // Single tokens have no least time: where JavaScript hears of one late, the next is there already.
    const roundMsPerToken = Array.from({ length: repeat }, (_, round) =>
      quantile(decodeMs.slice(round * tokens, (round + 1) * tokens), 0.5),
    );
    return {
      msPerToken: {
        min: Math.min(...roundMsPerToken),
        median: quantile(decodeMs, 0.5),
        max: Math.max(...roundMsPerToken),
      },
      roundMsPerToken,
      prefillTokensPerSecond: (promptTokens / quantile(prefillMs, 0.5)) * 1000,
    };
  });
}

/** Times contenders as `timeContenders` does, and says whether the machine was busy with something else meanwhile. */
export async function timeWatched(
  ...args: Parameters<typeof timeContenders>
): Promise<{ timings: Timing[]; busy: boolean }> {
  const { result: timings, busy } = await watchBusy(
    args[0],
    () => timeContenders(...args),
    (timed) => scatter(timed.map(({ roundMsPerToken }) => roundMsPerToken)),
  );
  return { timings, busy };
}

/**
 * How far a contender's median round is above its fastest one, as a fraction of the fastest. Of several contenders, the
 * median of that.
 */
export function scatter(rounds: ReadonlyArray<readonly number[]>): number {
  return quantile(
    rounds.map((ms) => quantile(ms, 0.5) / quantile(ms, 0) - 1),
    0.5,
  );
}

async function elapsed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

/** What the token ids that are timed are drawn from. */
export const TIMING_SEED = 1;

/** Uniform token ids from a fixed linear congruential generator (Numerical Recipes), so that runs are alike. */
function randomIds(count: number, vocabSize: number): number[] {
  let state = TIMING_SEED;
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * vocabSize);
  });
}
