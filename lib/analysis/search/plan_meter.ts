import { comparePlans } from '../eval/compare_plans.js';
import type { Window } from '../eval/windows.js';
import type { Model } from '../../model/model.js';
import { formatPlan, resolvePlan, type Plan } from '../../plan/plan.js';
import type { MeasurementFile } from './measurement_file.js';
import type { Quality } from './quality.js';

/** Plans measured together share one pass of the sequential model. */
export const PLANS_AT_ONCE = 8;

/** Measures plans on one part of a text, each plan once. */
export class PlanMeter {
  readonly #model: Model;
  readonly #part: string;
  readonly #windows: readonly Window[];
  readonly #file: MeasurementFile | undefined;
  readonly #known = new Map<string, Quality>();

  /** @param part what the file calls this part of the text. */
  constructor(model: Model, part: string, windows: readonly Window[], file?: MeasurementFile) {
    this.#model = model;
    this.#part = part;
    this.#windows = windows;
    this.#file = file;
  }

  /**
   * What plans cost, in their order; at most PLANS_AT_ONCE. Rejects with ABORTED, or with NOT_FINITE when a plan
   * computes values that are not finite.
   */
  async measure(plans: readonly Plan[], signal?: AbortSignal): Promise<Quality[]> {
    const keys = plans.map(formatPlan);
    const known = this.#known;
    for (const key of keys) {
      const quality = this.#file?.get(this.#part, key);
      if (quality) known.set(key, quality);
    }
    const missing = plans.filter((_, i) => !known.has(keys[i]!));
    if (missing.length > 0) {
      const sequential = resolvePlan('sequential', this.#model.config.nLayers);
      const [, ...measured] = await comparePlans(this.#model, [sequential, ...missing], this.#windows, { signal });
      for (const [i, { tokens, kl, perplexity, topAgreement }] of measured.entries()) {
        const key = formatPlan(missing[i]!);
        const quality = { tokens, kl: kl.mean, klStandardError: kl.standardError, perplexity, topAgreement };
        known.set(key, quality);
        await this.#file?.add(this.#part, key, quality);
      }
    }
    return keys.map((key) => known.get(key)!);
  }
}
