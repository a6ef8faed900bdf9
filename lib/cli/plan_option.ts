import { Option } from 'commander';
import { isPublishedName, resolvePlan, withBypassMode, type Plan } from '../plan.js';
import { planSummary } from '../plan_diagram.js';
import type { Io } from './io.js';

/** How plans of a command line are read. */
export interface PlanOptions {
  bypassMode?: Plan['bypassMode'];
}

export function bypassModeOption(): Option {
  return new Option('--bypass-mode <mode>', "how plans with a bypass add it up: paper, or official, as the authors' training code does (default: as the plan says)").choices(['paper', 'official']);
}

/** The plan that is meant on a command line, for a model of so many layers. Throws what `resolvePlan` throws. */
export function readPlan(spec: string, layers: number | undefined, options: PlanOptions, io: Io): Plan {
  const plan = resolvePlan(spec, layers);
  if (options.bypassMode !== undefined) return withBypassMode(plan, options.bypassMode);
  noteMode(spec, plan, io);
  return plan;
}

/** Says which bypass mode a plan has that nobody spelled out, where it is not the usual one. */
export function noteMode(spec: string, plan: Plan, io: Io): void {
  if (plan.bypassMode === 'official' && isPublishedName(spec)) io.err(`${spec} names a published model: the plan is ${planSummary(plan)}; --bypass-mode paper makes it the paper's\n`);
}
