import { mulberry32 } from '../eval/statistics.js';
import { formatPlan, resolvePlan, type Plan } from '../../plan/plan.js';

const LARGEST_GROUP = 4;

/** Draws in a row that give no new plan, after which there is taken to be none. */
const PATIENCE = 200;

/**
 * Distinct plans drawn at random, to try a prediction on: for each, how likely a stage is a group, then stages one by
 * one, groups of 2 to 4 layers; one plan in three has a bypass. Fewer than `count` where a model has no more. The same
 * for the same seed.
 */
export function randomPlans(layers: number, count: number, seed: number): Plan[] {
  const random = mulberry32(seed);
  const plans = new Map<string, Plan>();
  for (let misses = 0; plans.size < count && misses < PATIENCE; misses++) {
    const share = random();
    const groups: number[][] = [];
    for (let first = 0; first + 1 < layers;) {
      const size = random() < share ? Math.min(layers - first, 2 + Math.floor(random() * (LARGEST_GROUP - 1))) : 1;
      if (size > 1) groups.push(Array.from({ length: size }, (_, i) => first + i));
      first += size;
    }
    const plan = resolvePlan(
      { version: 1, layers, groups, bypass: random() < 1 / 3 && groups.length > 0 ? 1 : 0, bypassMode: 'paper' },
      layers,
    );
    const key = formatPlan(plan);
    if (groups.length === 0 || plans.has(key)) continue;
    plans.set(key, plan);
    misses = 0;
  }
  return [...plans.values()];
}
