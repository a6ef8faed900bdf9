import { quantile } from '../eval/statistics.js';
import type { Plan } from '../../plan/plan.js';
import { groupingOf, planOf } from './grouping.js';
import { PLANS_AT_ONCE, type PlanMeter } from './plan_meter.js';

/** A pair among the first layers costs too much when its KL is this many times that of a typical pair of the others. */
const TOO_MUCH = 5;
/** Pairs looked at among the first layers, and at most. */
const EARLY = 4;

/** A pair of layers grouped by itself, and what that costs. */
export interface PairCost {
  first: number;
  kl: number;
}

export interface MeasuredGuard {
  guard: number;
  /** Empty where there are too few layers to compare. */
  pairs: PairCost[];
}

/**
 * How many layers at the start are better left alone: in some models sharing the first layer's input ruins everything,
 * in others the first two do, and no group may begin there. Measured as the KL of pairs of layers, each by itself: all
 * in the first quarter, at most 4, and as many spread over the rest.
 */
export async function measureGuard(
  layers: number,
  meter: Pick<PlanMeter, 'measure'>,
  signal?: AbortSignal,
): Promise<MeasuredGuard> {
  const early = Math.min(EARLY, Math.ceil(layers / 4));
  const others = layers - 1 - early;
  if (others < 1) return { guard: 0, pairs: [] };
  const spread = Math.min(PLANS_AT_ONCE - early, others);
  const firsts = [...range(early), ...range(spread).map((i) => early + Math.floor(((i + 0.5) * others) / spread))];
  const plans = firsts.map((first): Plan =>
    planOf({ layers, guard: 0 }, groupingOf({ layers, guard: 0 }, [{ first, size: 2 }], 0)),
  );
  const qualities = await meter.measure(plans, signal);
  const pairs = firsts.map((first, i) => ({ first, kl: qualities[i]!.kl }));
  return { guard: guardOf(pairs, early), pairs };
}

/** The layers up to the last of the `early` pairs that costs too much. */
function guardOf(pairs: readonly PairCost[], early: number): number {
  const typical = quantile(
    pairs.slice(early).map(({ kl }) => kl),
    0.5,
  );
  return 1 + pairs.slice(0, early).findLastIndex(({ kl }) => kl > TOO_MUCH * typical);
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}
