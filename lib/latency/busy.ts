import { idleProcessors } from './idle_processors.js';

/** Said where times were measured while `watchBusy` found the machine busy. */
export const BUSY_WHILE_MEASURED = 'The machine was busy with something else while this was measured, so these times say little. Measure again when nothing else runs.';

/** Of typical times over the least ones, the excess, as a fraction: undisturbed, typical times are 5 to 40 % above the least. */
const BUSY_SCATTER = 0.6;
/** Idle processors there should be for each thread, and how long they are watched. */
const IDLE_PER_THREAD = 0.8;
const WATCH_MS = 250;

/**
 * Measures something on a model, and says whether the machine was busy with something else while it did: processors had work before or after,
 * or the times scattered.
 *
 * @param scatterOf how much typical times of a result are above the least ones, a fraction.
 */
export async function watchBusy<T>({ backend, threads }: { backend: 'cpu' | 'cuda'; threads: number }, measure: () => Promise<T>, scatterOf: (result: T) => number): Promise<{ result: T; busy: boolean }> {
  const tooFew = async (): Promise<boolean> => backend === 'cpu' && (await idleProcessors(WATCH_MS)) < IDLE_PER_THREAD * threads;
  const before = await tooFew();
  const result = await measure();
  return { result, busy: before || scatterOf(result) > BUSY_SCATTER || (await tooFew()) };
}
