import { Option } from 'commander';
import { isPublishedName, resolvePlan, withBypassMode, type Plan } from '../plan/plan.js';
import { planSummary } from '../plan/plan_diagram.js';
import type { Io } from './io.js';

/** Options that say how the plans on a command line are read. */
export interface PlanOptions {
  bypassMode?: Plan['bypassMode'];
}

export function bypassModeOption(): Option {
  return new Option(
    '--bypass-mode <mode>',
    "how plans with a bypass add it up: paper, or official, as the authors' training code does (default: as the " +
      'plan says)',
  ).choices(['paper', 'official']);
}

/**
 * Reads a plan given on a command line. `layers` is the model's number of layers; when it is undefined, the plan itself
 * must say it. Throws what `resolvePlan` throws.
 */
export function readPlan(spec: string, layers: number | undefined, options: PlanOptions, io: Io): Plan {
  const plan = resolvePlan(spec, layers);
  if (options.bypassMode !== undefined) return withBypassMode(plan, options.bypassMode);
  // The user is told when only the name of a published model says that the plan is in mode "official".
  if (plan.bypassMode === 'official' && isPublishedName(spec))
    io.err(
      `${spec} names a published model: the plan is ${planSummary(plan)}; --bypass-mode paper makes it the paper's\n`,
    );
  return plan;
}
