import type { Checkpoint } from '../checkpoint/types.js';
import { chooseActivations } from '../engine/activations.js';
import { chooseKvCache } from '../engine/kv_cache.js';
import { defaultThreads, describeMachine } from '../engine/machine.js';
import type { TimedPlacement } from '../engine/placement.js';
import { CqilError } from '../errors.js';
import type { BackendOptions } from './options.js';

/** Options that say where a model is computed. */
export type UnloadedOptions = Pick<BackendOptions, 'backend' | 'threads' | 'kvCache' | 'activations'>;

/** Where a model would be computed on a backend if it were loaded with these options. */
export function placementOn(
  backend: 'cpu' | 'cuda',
  checkpoint: Checkpoint,
  options: Omit<UnloadedOptions, 'backend'>,
): TimedPlacement {
  const { tensors } = checkpoint;
  const { threads = defaultThreads(checkpoint) } = options;
  const activations = chooseActivations(options.activations, backend, tensors, describeMachine);
  return { backend, threads, kvCache: chooseKvCache(options.kvCache, activations, tensors), activations };
}

/** What the engine says; undefined where its addon cannot be loaded: plans are explained all the same. */
export async function ifEngine<T>(ask: () => T | Promise<T>): Promise<T | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof CqilError && error.code === 'NATIVE_ADDON') return undefined;
    throw error;
  }
}
