import type { Activations } from './activations.js';
import type { KvCache } from './kv_cache.js';
import type { Execution, Split } from './native.js';

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
  /** How much of what is divided each rank has, in proportion: [1] where one process computes the model. */
  ranks: readonly number[];
  /**
   * What ranks hold. `lanes`: whole lanes of groups, and all of the other layers. `hybrid`: whole lanes where every rank
   * gets as many, and slices of everything else. `tensor`: slices of every layer.
   */
  split: Split;
}

/** What tells times of one placement from those of another. */
export type TimedPlacement = Pick<Placement, 'backend' | 'threads' | 'kvCache' | 'activations'> &
  Partial<Pick<Placement, 'ranks' | 'split'>>;
