import { planShorthand, type Plan } from '../plan/plan.js';

/** A plan inside a JSON document: its shorthand where that says everything, the plan itself otherwise. */
export function planForJson(plan: Plan): string | Plan {
  return planShorthand(plan) ?? plan;
}
