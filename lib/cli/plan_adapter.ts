import path from 'node:path';
import { openLora } from '../checkpoint/lora.js';
import type { ModelConfig } from '../checkpoint/types.js';
import type { Plan } from '../plan/plan.js';
import { absolutePath } from '../util/location.js';

/** Throws unless a plan's adapter, if it has one, can be read and fits the model. */
export async function checkAdapter(plan: Plan, config: ModelConfig | undefined): Promise<void> {
  if (plan.adapter !== undefined && config) await openLora(plan.adapter, config);
}

/**
 * The plan as its file has it: the adapter relative to the file where they lie side by side or below, so that both can
 * be moved.
 */
export function planInFile(plan: Plan, file: string): Plan {
  if (plan.adapter === undefined) return plan;
  const adapter = absolutePath(plan.adapter, 'The adapter');
  const relative = path.relative(path.dirname(absolutePath(file, 'The output')), adapter);
  const below = relative !== '' && !relative.startsWith('..') && !path.isAbsolute(relative);
  return { ...plan, adapter: below ? relative.split(path.sep).join('/') : adapter };
}
