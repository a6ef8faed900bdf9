import { idleProcessors } from './idle_processors.js';

/** The warning for times that were measured while `watchBusy` found the machine busy. */
export const BUSY_WHILE_MEASURED =
  'The machine was busy with something else while this was measured, so these times say little. Measure again when ' +
  'nothing else runs.';

/**
 * From this scatter on, the machine counts as busy. Scatter is how far typical times are above the least ones, as a
 * fraction; on an undisturbed machine it is 0.05 to 0.4.
 */
const BUSY_SCATTER = 0.6;
/** With fewer idle processors per thread, the machine counts as busy. */
const IDLE_PER_THREAD = 0.8;
/** How long processors are watched. */
const WATCH_MS = 250;

/**
 * Measures something on a model, and says whether the machine was busy with something else meanwhile. It was when
 * processors had other work before or after, or when the times scattered.
 *
 * @param scatterOf gives the scatter of a result: how far typical times are above the least ones, as a fraction.
 */
export async function watchBusy<T>(
  { backend, threads }: { backend: 'cpu' | 'cuda'; threads: number },
  measure: () => Promise<T>,
  scatterOf: (result: T) => number,
): Promise<{ result: T; busy: boolean }> {
  const tooFew = async (): Promise<boolean> =>
    backend === 'cpu' && (await idleProcessors(WATCH_MS)) < IDLE_PER_THREAD * threads;
  const before = await tooFew();
  const result = await measure();
  return { result, busy: before || scatterOf(result) > BUSY_SCATTER || (await tooFew()) };
}
