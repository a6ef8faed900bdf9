import { readFileSync } from 'node:fs';

/**
 * The milliseconds that this thread has computed, not counting what it waited for a core: so a busy machine makes no
 * turn of the event loop longer. Where the system does not say, time on the clock.
 */
export function computedMs(): number {
  try {
    return Number(readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[0]) / 1e6;
  } catch {
    return performance.now();
  }
}

/** What `work` gives, and how many turns of the event loop it leaves to others meanwhile. */
export async function countTurns<T>(work: () => PromiseLike<T>): Promise<{ result: T; turns: number }> {
  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  try {
    return { result: await work(), turns };
  } finally {
    clearInterval(timer);
  }
}

/** The longest turn of the event loop, in milliseconds of computing, while `work` runs. */
export async function longestTurn(work: () => PromiseLike<unknown>): Promise<number> {
  let running = true;
  let longest = 0;
  let last = computedMs();
  const turn = (): void => {
    const now = computedMs();
    longest = Math.max(longest, now - last);
    last = now;
    if (running) setImmediate(turn);
  };
  setImmediate(turn);
  try {
    await work();
  } finally {
    running = false;
  }
  turn();
  return longest;
}
