import type { LoraUpdate } from '../../checkpoint/write_lora.js';
import type { TextQuality } from '../eval/compare_plans.js';
import type { Site, Teacher } from './group_moments.js';

/** What became of one group at one site. */
export interface SiteOutcome {
  group: number[];
  site: Site;
  /** Absent where nothing helped. `explained` is a share of what the group lacks there, on the part that chooses. */
  kept?: { teacher: Teacher; rank: number; explained: number };
  /** Mean KL on the part that chooses, with what was kept before: without the correction, and with the best found. */
  klBefore: number;
  klAfter: number;
}

export interface RecoveredPlan {
  /** For `writeLora`. Empty where nothing helped. */
  updates: LoraUpdate[];
  sites: SiteOutcome[];
  /** On the held-out part. `after` is `before` where nothing was kept. */
  heldOut: { sequential: TextQuality; before: TextQuality; after: TextQuality };
  window: number;
  /** Tokens of each part. */
  fitTokens: number;
  chooseTokens: number;
  heldOutTokens: number;
}
