import path from 'node:path';
import type { Checkpoint } from '../checkpoint/types.js';
import { CqilError } from '../errors.js';
import { resolvePlan, type Plan } from '../plan/plan.js';
import { planSummary } from '../plan/plan_diagram.js';

/** The plan in a model's config.json (`cqil_layers`). It is used only when it is asked for. */
export interface PublishedPlan {
  /** The model's folder. Given as a plan, it stands for this one. */
  folder: string;
  /** The plan, or the error that says why it cannot be used. */
  plan: Plan | CqilError;
}

/** The plan in a checkpoint's config.json; undefined when it has none. */
export function publishedPlan({ plan: found, config }: Pick<Checkpoint, 'plan' | 'config'>): PublishedPlan | undefined {
  if (found === undefined) return undefined;
  const folder = path.dirname(found.file);
  try {
    return { folder, plan: resolvePlan(found.fields, config.nLayers) };
  } catch (error) {
    if (error instanceof CqilError) return { folder, plan: error };
    throw error;
  }
}

/** One sentence saying that there is a plan; `usage` is how to ask for it. */
export function publishedPlanNote({ folder, plan }: PublishedPlan, usage: string): string {
  if (plan instanceof CqilError)
    return `The config.json of ${folder} has "cqil_layers" that make no plan for it: ${plan.message}`;
  return (
    `The config.json of ${folder} holds the plan ${planSummary(plan)}, which is used only when it is asked ` +
    `for: ${usage}.`
  );
}
