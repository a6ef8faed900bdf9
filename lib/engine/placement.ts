import type { Activations } from './activations.js';
import type { KvCache } from './kv_cache.js';
import type { Execution } from './native.js';

/**
 * Where and how a model is computed. Formats aside, which round, it changes how long that takes and nothing else; what
 * is computed is the plan's.
 */
export interface Placement {
  backend: 'cpu' | 'cuda';
  /** Most threads of the CPU backend. */
  threads: number;
  execution: Execution;
  /** How keys and values are kept. */
  kvCache: KvCache;
  /** What vectors are when weights are multiplied with them. */
  activations: Activations;
}

/** What tells times of one placement from those of another. */
export type TimedPlacement = Pick<Placement, 'backend' | 'threads' | 'kvCache' | 'activations'>;
