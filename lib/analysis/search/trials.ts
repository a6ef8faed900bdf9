import { onAbort, throwIfAborted } from '../../util/abort.js';
import { CqilError } from '../../errors.js';
import { planShorthand, type Plan } from '../../plan/plan.js';
import { keyOf, planOf, type Grouping, type SearchSpace } from './grouping.js';
import { PLANS_AT_ONCE } from './plan_meter.js';
import type { Quality } from './quality.js';

/** What thought of a plan first. */
export type Method = 'uniform' | 'similarity' | 'group costs' | 'local search';

/** A grouping that was measured on the fitting part. */
export interface Trial {
  grouping: Grouping;
  plan: Plan;
  method: Method;
  quality: Quality;
}

export type Measure = (plans: readonly Plan[], signal?: AbortSignal) => Promise<Quality[]>;

export interface Budget {
  /** Plans measured at most. */
  evaluations?: number;
  /** Milliseconds of measuring at most. */
  milliseconds?: number;
  signal?: AbortSignal;
  /** Told which share of the budget is spent, 0 to 1. */
  onProgress?: (share: number) => void;
}

/** Every grouping a search has measured, and what it may still spend. */
export class Trials {
  /** The grouping with the least KL for each number of stages, counted behind the guard. */
  readonly best = new Map<number, Trial>();
  /** The best among the paper's plans: groups of one size over one contiguous range. */
  readonly bestUniform = new Map<number, Trial>();
  readonly #space: SearchSpace;
  readonly #measure: Measure;
  readonly #budget: Budget;
  readonly #all = new Map<string, Trial>();
  readonly #start = performance.now();

  constructor(space: SearchSpace, measure: Measure, budget: Budget) {
    this.#space = space;
    this.#measure = measure;
    this.#budget = budget;
  }

  /** Groupings measured. */
  get count(): number {
    return this.#all.size;
  }

  /** The `width` groupings with the least KL for each number of stages. */
  leaders(width: number): Trial[] {
    const byStages = new Map<number, Trial[]>();
    for (const trial of this.#all.values()) {
      const { length } = trial.grouping.sizes;
      const others = byStages.get(length);
      if (others) others.push(trial);
      else byStages.set(length, [trial]);
    }
    return [...byStages.values()].flatMap((trials) =>
      trials.toSorted((a, b) => a.quality.kl - b.quality.kl).slice(0, width),
    );
  }

  /** The grouping with the least KL among those whose plan is wanted. */
  bestOf(wanted: (plan: Plan) => boolean): Trial | undefined {
    let best: Trial | undefined;
    for (const trial of this.#all.values())
      if ((!best || trial.quality.kl < best.quality.kl) && wanted(trial.plan)) best = trial;
    return best;
  }

  /** Which share of the budget is spent: 1 and more, all of it. 0 without a budget. */
  get spent(): number {
    const { evaluations = Infinity, milliseconds = Infinity } = this.#budget;
    return Math.max(this.count / evaluations, (performance.now() - this.#start) / milliseconds);
  }

  get(grouping: Grouping): Trial | undefined {
    return this.#all.get(keyOf(grouping));
  }

  /**
   * Measures those groupings that have groups and were not measured yet, in their order, until `share` of the budget
   * is spent.
   *
   * @returns whether all were measured.
   */
  async run(groupings: readonly Grouping[], method: Method, share = 1): Promise<boolean> {
    const fresh = new Map(groupings.map((grouping) => [keyOf(grouping), grouping]));
    for (const [key, { sizes }] of fresh)
      if (this.#all.has(key) || sizes.every((size) => size === 1)) fresh.delete(key);
    const waiting = [...fresh.values()];
    while (waiting.length > 0) {
      const left = Math.floor((this.#budget.evaluations ?? Infinity) * share) - this.count;
      const chunk = waiting.splice(0, Math.min(PLANS_AT_ONCE, left));
      if (left <= 0 || this.spent >= share || !(await this.#runTogether(chunk, method))) return false;
      this.#budget.onProgress?.(Math.min(1, this.spent));
    }
    return true;
  }

  /** False when time ran out before the measurement was done. */
  async #runTogether(groupings: Grouping[], method: Method): Promise<boolean> {
    const plans = groupings.map((grouping) => planOf(this.#space, grouping));
    const qualities = await this.#inTime((signal) => this.#measure(plans, signal));
    if (!qualities) return false;
    for (const [i, grouping] of groupings.entries())
      this.#add({ grouping, plan: plans[i]!, method, quality: qualities[i]! });
    return true;
  }

  #add(trial: Trial): void {
    const { grouping, plan, quality } = trial;
    this.#all.set(keyOf(grouping), trial);
    const archives = planShorthand(plan) === undefined ? [this.best] : [this.best, this.bestUniform];
    for (const archive of archives) {
      const before = archive.get(grouping.sizes.length);
      if (!before || quality.kl < before.quality.kl) archive.set(grouping.sizes.length, trial);
    }
  }

  /** What `work` gives, or undefined when the time of the budget was over before. */
  async #inTime<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T | undefined> {
    const { milliseconds, signal } = this.#budget;
    throwIfAborted(signal);
    const abort = new AbortController();
    const stop = (): void => abort.abort(signal?.reason);
    const timer =
      milliseconds === undefined
        ? undefined
        : setTimeout(stop, Math.max(0, milliseconds - (performance.now() - this.#start)));
    const forget = onAbort(signal, stop);
    try {
      return await work(abort.signal);
    } catch (error) {
      if (error instanceof CqilError && error.code === 'ABORTED' && !signal?.aborted) return undefined;
      throw error;
    } finally {
      clearTimeout(timer);
      forget();
    }
  }
}
