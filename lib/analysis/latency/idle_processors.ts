import os from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * How many processors had nothing to do, on average, while this process waited; as many as there are where the system
 * does not say.
 */
export async function idleProcessors(milliseconds: number): Promise<number> {
  const before = os.cpus();
  await sleep(milliseconds);
  const after = os.cpus();
  if (after.length === 0 || after.length !== before.length) return Infinity;
  let idle = 0;
  for (const [i, { times }] of after.entries()) {
    const was = before[i]!.times;
    const total = (Object.keys(times) as Array<keyof typeof times>).reduce(
      (sum, kind) => sum + times[kind] - was[kind],
      0,
    );
    idle += total > 0 ? (times.idle - was.idle) / total : 1;
  }
  return idle;
}
