import type { TextQuality } from '../eval/compare_plans.js';
import type { Plan } from '../../plan/plan.js';
import type { Similarity } from '../similarity/similarity.js';
import type { Timeline } from '../../engine/timeline.js';

/** Repeated measurements: the least, the quartiles, the greatest. */
export interface Spread {
  min: number;
  low: number;
  median: number;
  high: number;
  max: number;
}

/** How long a plan takes to decode a token. */
export interface Speed {
  /** Milliseconds per token: medians of the rounds. */
  msPerToken: Spread;
  /** Time per token relative to the sequential plan in the same round, minus 1. */
  change: Spread;
}

/** A plan that was measured for this report. */
export interface PlanRow extends Speed {
  plan: Plan;
  /** What it is called. */
  name: string;
  lossy: boolean;
  /** Dependent phases inside layers. */
  phases: number;
  quality: TextQuality;
}

/** A plan that an earlier search measured, timed for this report. */
export interface SearchedPlan extends Speed {
  plan: Plan;
  name: string;
  phases: number;
  method: string;
  kl: number;
  klStandardError: number;
  perplexity: number;
}

/** An earlier search, as far as it is drawn. */
export interface SearchedFront {
  file: string;
  /** The text it measured on, and tokens of it that were held out. */
  text: string;
  sha256: string;
  tokens: number;
  seed: number;
  plans: SearchedPlan[];
}

/** A token whose phases were timed. */
export interface TracedToken {
  plan: Plan;
  name: string;
  timeline: Timeline;
}

/** Where everything in a report comes from. */
export interface Provenance {
  /** When it was made, as ISO 8601. */
  made: string;
  cqil: string;
  /** The commit of the sources, where they are a checkout. */
  commit: string | null;
  command: string;
  machine: {
    cpu: string;
    cores: number;
    isa: string;
    memoryBytes: number;
    node: string;
    backend: string;
    threads: number;
    kvCache: string;
    activations: string;
  };
  /** What the random token ids that were timed are drawn from. */
  seed: number;
}

/** Everything a report shows. */
export interface ReportData {
  model: { name: string; fingerprint: string; architecture: string; layers: number; dim: number; parameters: number };
  text: { name: string; sha256: string; tokens: number; window: number };
  similarity: Similarity;
  /** Sequential first, then the plan the report is about, then others. */
  rows: PlanRow[];
  timing: { rounds: number; promptTokens: number; tokens: number; busy: boolean };
  front: SearchedFront | null;
  /** One token per plan and execution; none on a backend that keeps no times. */
  traces: TracedToken[];
  /** The position of the token that was traced, and of how many it is the median. */
  traced: { position: number; repeats: number };
  provenance: Provenance;
}
