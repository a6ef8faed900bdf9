import type { CqilError } from '../errors.js';
import type { ModelSpec, RankSpec } from '../engine/native.js';

/** What a follower is told to load. */
export interface RankOrder {
  rank: number;
  size: number;
  /** Where the exchange is found. */
  address: string;
  /** Milliseconds for which it waits until all ranks have come. */
  meetWithin: number;
  spec: Omit<ModelSpec, 'rank'>;
  /** The exchange is the follower's own. */
  share: Omit<RankSpec, 'exchange'>;
}

/** What it answers once it has loaded its share, or cannot. */
export type RankAnswer = { ready: true } | { error: { code: CqilError['code']; message: string } };
