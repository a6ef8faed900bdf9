import path from 'node:path';
import type { Checkpoint } from '../../checkpoint/types.js';
import { writeLora, type LoraUpdate } from '../../checkpoint/write_lora.js';
import { CqilError } from '../../errors.js';
import { comparePlans } from '../eval/compare_plans.js';
import type { Window } from '../eval/windows.js';
import type { Model } from '../../model/model.js';
import { Pace } from '../../util/pace.js';
import { resolvePlan, type Plan } from '../../plan/plan.js';
import { foldMap, readGains } from './fold.js';
import { collectMoments, SITES, TEACHERS, type Site, type Teacher } from './group_moments.js';
import type { Moments } from './moments.js';
import type { RecoveredPlan, SiteOutcome } from './outcome.js';
import { reducedRank, type LowRankMap } from './reduced_rank.js';

export interface RecoveryParts {
  model: Model;
  checkpoint: Checkpoint;
  plan: Plan;
  /** What corrections are fitted on, and what chooses among them. */
  fit: readonly Window[];
  choose: readonly Window[];
  /** For the adapters that are tried. */
  folder: string;
  rank: number;
  signal?: AbortSignal;
  onProgress?: (share: number) => void;
}

interface Correction {
  teacher: Teacher;
  rank: number;
  explained: number;
  updates: LoraUpdate[];
  plan: Plan;
}

/** One run over the groups of a plan. */
export class Recovery {
  /** Kept so far. */
  updates: LoraUpdate[] = [];
  /** The plan with these. */
  #current: Plan;
  #tried = 0;
  /** Plans whose adapters may be merged in the model. */
  readonly #merged = new Set<Plan>();
  #tokens = 0;
  readonly #parts: RecoveryParts;
  readonly #sequential: Plan;
  readonly #pace: Pace;

  constructor(parts: RecoveryParts) {
    this.#parts = parts;
    this.#current = parts.plan;
    this.#sequential = resolvePlan('sequential', parts.plan.layers);
    this.#pace = new Pace(parts.signal);
  }

  /** Later sites and groups are fitted on what they get from the corrected ones before them. */
  async run(): Promise<SiteOutcome[]> {
    const outcomes: SiteOutcome[] = [];
    let kl = (await this.#klOf([this.#current]))[0]!;
    for (const group of this.#parts.plan.groups) {
      for (const site of SITES) {
        const corrections = await this.#corrections(group, site);
        const kls = corrections.length > 0 ? await this.#klOf(corrections.map(({ plan }) => plan)) : [];
        const klAfter = Math.min(kl, ...kls);
        const best = klAfter < kl ? corrections[kls.indexOf(klAfter)] : undefined;
        for (const { plan } of corrections) if (plan !== best?.plan) this.#release(plan);
        if (best) this.#keep(best);
        const { teacher, rank, explained } = best ?? {};
        outcomes.push({
          group,
          site,
          klBefore: kl,
          klAfter: kls.length > 0 ? Math.min(...kls) : kl,
          ...(best && { kept: { teacher: teacher!, rank: rank!, explained: explained! } }),
        });
        kl = klAfter;
      }
    }
    return outcomes;
  }

  /** Quality on another part: of the sequential model, the plan as it was given, and with what was kept. */
  async measure(windows: readonly Window[]): Promise<RecoveredPlan['heldOut']> {
    const { model, plan, signal } = this.#parts;
    const plans = this.updates.length > 0 ? [plan, this.#current] : [plan];
    const [sequential, before, after = before] = await comparePlans(model, [this.#sequential, ...plans], windows, {
      signal,
    });
    return { sequential: sequential!, before: before!, after: after! };
  }

  /** Frees what was merged. */
  close(): void {
    for (const plan of this.#merged) this.#release(plan);
  }

  #release(plan: Plan): void {
    if (this.#merged.delete(plan)) this.#parts.model.release(plan);
  }

  #keep({ updates, plan }: Correction): void {
    this.#release(this.#current);
    this.updates = updates;
    this.#current = plan;
  }

  /**
   * The KL divergence of each plan from the sequential one; Infinity when a plan's updates give values that are not
   * finite.
   */
  async #klOf(plans: readonly Plan[]): Promise<number[]> {
    const { model, choose, signal } = this.#parts;
    try {
      const [, ...qualities] = await comparePlans(model, [this.#sequential, ...plans], choose, { signal });
      return qualities.map(({ kl }) => kl.mean);
    } catch (error) {
      if (!(error instanceof CqilError) || error.code !== 'NOT_FINITE') throw error;
      if (plans.length === 1) return [Infinity];
      const each: number[] = [];
      for (const plan of plans) each.push(...(await this.#klOf([plan])));
      return each;
    }
  }

  async #corrections(group: number[], site: Site): Promise<Correction[]> {
    const { checkpoint, fit, choose, rank } = this.#parts;
    const gains = await readGains(checkpoint, group, site);
    const [fitted, chosen] = [
      await this.#moments(group, site, gains, fit),
      await this.#moments(group, site, gains, choose),
    ];
    const corrections: Correction[] = [];
    for (const [target, teacher] of TEACHERS.entries()) {
      const maps = fitted.map((moments, i) => reducedRank(moments, chosen[i]!, target, rank));
      const updates = await this.#fold(maps, group, site);
      if (updates.length === 0) continue;
      corrections.push({
        teacher,
        rank: Math.max(...maps.map((map) => map?.u.length ?? 0)),
        explained: explainedShare(maps, chosen, target),
        updates: [...this.updates, ...updates],
        plan: this.#current,
      });
    }
    for (const correction of corrections) {
      const adapter = path.join(this.#parts.folder, String(this.#tried++));
      await writeLora(adapter, correction.updates, checkpoint.path);
      correction.plan = { ...this.#current, adapter };
      this.#merged.add(correction.plan);
    }
    return corrections;
  }

  #moments(group: number[], site: Site, gains: Float32Array[], windows: readonly Window[]): Promise<Moments[]> {
    const { model, plan, fit, choose, signal, onProgress } = this.#parts;
    const total = plan.groups.length * SITES.length * [...fit, ...choose].reduce((sum, { ids }) => sum + ids.length, 0);
    const plans = {
      grouped: this.#current,
      alone: { ...this.#current, groups: plan.groups.filter((other) => other !== group) },
      sequential: this.#sequential,
    };
    return collectMoments(model, plans, { group, site, gains }, windows, this.#pace, {
      signal,
      onTokens: (count) => onProgress?.((this.#tokens += count) / total),
    });
  }

  /** A map of the output reads all members' m side by side: each folds its own block. */
  async #fold(
    maps: ReadonlyArray<LowRankMap | undefined>,
    group: readonly number[],
    site: Site,
  ): Promise<LoraUpdate[]> {
    const { dim } = this.#parts.model.config;
    const updates: LoraUpdate[] = [];
    for (const [j, layer] of group.entries()) {
      const map = site === 'output' ? maps[0] : maps[j];
      if (!map) continue;
      const v = site === 'output' ? map.v.map((vector) => vector.subarray(j * dim, (j + 1) * dim)) : map.v;
      updates.push(...(await foldMap(this.#parts.checkpoint, layer, site, { u: map.u, v }, this.#pace)));
    }
    return updates;
  }
}

/** The share of what members lack at a site that their maps explain. */
function explainedShare(
  maps: ReadonlyArray<LowRankMap | undefined>,
  moments: readonly Moments[],
  target: number,
): number {
  const energies = moments.map(({ energy }) => energy[target]!);
  const total = energies.reduce((sum, energy) => sum + energy, 0);
  return maps.reduce((sum, map, i) => sum + (map?.explained ?? 0) * energies[i]!, 0) / total;
}
