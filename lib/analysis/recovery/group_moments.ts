import { CqilError } from '../../errors.js';
import type { Window } from '../eval/windows.js';
import type { Model } from '../../model/model.js';
import type { Pace } from '../../util/pace.js';
import type { Plan } from '../../plan/plan.js';
import { MAX_TRACE, type Session } from '../../session/session.js';
import { Moments } from './moments.js';
import { TraceReader } from './trace_reader.js';

/**
 * Where a group is corrected, in the order it computes: what each member's attention normalizes and scales, n; the same
 * of its MLP; and what the members' MLPs add, m.
 */
export const SITES = ['attention input', 'MLP input', 'output'] as const;
export type Site = (typeof SITES)[number];

/** Towards what: the same layers one after the other on the same input, or the sequential model at the same depth. */
export const TEACHERS = ['same input', 'sequential'] as const;
export type Teacher = (typeof TEACHERS)[number];

/** Bytes of the traces held at a time; of a deep and wide model fewer tokens fit. */
const TRACE_BYTES = 32 << 20;

/** The plans that run side by side to collect a group's moments. */
export interface MomentPlans {
  /** With the group, and what was corrected before. */
  grouped: Plan;
  /** The same, but with the layers of the group one after the other. */
  alone: Plan;
  sequential: Plan;
}

export interface GroupSite {
  group: readonly number[];
  site: Site;
  /** The gain of the norm before each member's site, [members][dim]; unused at the output. */
  gains: readonly Float32Array[];
}

/**
 * Second moments of what a group has at a site and of what it lacks of each teacher's. At an input, of each member: z =
 * n_j and r = n_j of the teacher − n_j, both [dim]. At the output, of the group: z = [m_i; …; m_{i+p−1}] [p · dim] and
 * r = y of the teacher − y [dim]. The first token of a window is left out, because it sees nothing and trained models
 * treat it apart.
 *
 * @returns moments with the teachers as targets, in the order of TEACHERS: one of each member, or one of the group.
 */
export async function collectMoments(
  model: Model,
  plans: MomentPlans,
  at: GroupSite,
  windows: readonly Window[],
  pace: Pace,
  { signal, onTokens }: { signal?: AbortSignal; onTokens?: (count: number) => void } = {},
): Promise<Moments[]> {
  const { nLayers, dim } = model.config;
  const { group, site } = at;
  const batch = Math.max(
    1,
    Math.min(MAX_TRACE, Math.floor(TRACE_BYTES / (3 * nLayers * 3 * dim * Float32Array.BYTES_PER_ELEMENT))),
  );
  const contextLength = Math.max(...windows.map(({ ids }) => ids.length));
  const moments =
    site === 'output'
      ? [new Moments(group.length * dim, dim, TEACHERS.length)]
      : group.map(() => new Moments(dim, dim, TEACHERS.length));
  const sessions: Session[] = [];
  try {
    for (const plan of [plans.grouped, plans.alone, plans.sequential])
      sessions.push(model.createSession({ plan: await model.prepare(plan), contextLength }));
    for (const { ids } of windows) {
      for (const session of sessions) session.truncate(0);
      for (let from = 0; from < ids.length; from += batch) {
        const slice = ids.slice(from, from + batch);
        const traces: Float32Array[] = [];
        for (const session of sessions) traces.push(await session.trace(slice, { signal }));
        const reader = new TraceReader(model.config, slice.length, from === 0 ? 1 : 0);
        for (const [i, { z, r }] of samplesOf(reader, traces, at, plans.grouped).entries()) {
          for (const values of r) expectFinite(values, group);
          moments[i]!.add(reader.count, z, r);
          await pace.pause();
        }
        onTokens?.(slice.length);
      }
    }
    return moments;
  } finally {
    for (const session of sessions) session.close();
  }
}

interface Samples {
  z: Float64Array;
  /** One per teacher. */
  r: Float64Array[];
}

function samplesOf(
  reader: TraceReader,
  [grouped, ...teachers]: readonly Float32Array[],
  { group, site, gains }: GroupSite,
  plan: Plan,
): Samples[] {
  if (site === 'output') {
    const y = reader.groupOutput(grouped!, group, plan);
    return [
      {
        z: reader.mlpOutputs(grouped!, group),
        r: teachers.map((trace) => subtract(reader.layerOutput(trace, group.at(-1)!), y)),
      },
    ];
  }
  return group.map((layer, j) => {
    const input = (trace: Float32Array, bypass: number): Float64Array =>
      site === 'attention input'
        ? reader.attentionInput(trace, layer, gains[j]!)
        : reader.mlpInput(trace, layer, bypass, gains[j]!);
    const z = input(grouped!, Math.min(plan.bypass, j));
    // A teacher's layers run one after the other: nothing is bypassed.
    return { z, r: teachers.map((trace) => subtract(input(trace, 0), z)) };
  });
}

function subtract(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((value, i) => value - b[i]!);
}

function expectFinite(values: Float64Array, group: readonly number[]): void {
  if (values.every(Number.isFinite)) return;
  throw new CqilError(
    'NOT_FINITE',
    `Layers ${group[0]} to ${group.at(-1)} compute values that are infinite or not numbers; expected weights that ` +
      'give finite ones.',
  );
}
