import { planShorthand, type Plan } from '../../plan/plan.js';

/** Groups that a name lists; of more, the first ones and the last. */
const MOST_GROUPS = 5;

/** What a report calls a plan: its shorthand, or its groups, `[2–5] [6–8] [11–12] D1`. */
export function planName(plan: Plan): string {
  const name = planShorthand({ ...plan, adapter: undefined, evidence: undefined }) ?? groupsOf(plan);
  return plan.adapter === undefined ? name : `${name} + adapter`;
}

function groupsOf({ groups, bypass, bypassMode }: Plan): string {
  const names = groups.map((group) => `[${group[0]}–${group.at(-1)}]`);
  const listed = names.length <= MOST_GROUPS ? names : [...names.slice(0, MOST_GROUPS - 2), '…', names.at(-1)!];
  return `${listed.join(' ')} D${bypass}${bypass > 0 && bypassMode === 'official' ? ' official' : ''}`;
}
