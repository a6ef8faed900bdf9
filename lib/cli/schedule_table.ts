import { chooseActivations } from '../engine/activations.js';
import type { Checkpoint } from '../checkpoint/types.js';
import { CqilError } from '../errors.js';
import { chooseKvCache } from '../engine/kv_cache.js';
import { cpuLimits, defaultThreads, describeMachine } from '../engine/machine.js';
import type { Program } from '../engine/native.js';
import type { ScheduleStep } from '../engine/schedule.js';
import { modelBytes, scheduleOf } from '../analysis/latency/work.js';
import { compilePlan } from '../model/model.js';
import type { Plan } from '../plan/plan.js';
import { counted } from '../util/count.js';
import type { BackendOptions } from './options.js';
import { formatTable } from './table.js';

/** How the first token of a text is computed in one execution. */
export interface ExplainedSchedule {
  backend: 'cpu' | 'cuda';
  execution: 'wide' | 'lanes';
  /** 0 on a GPU. */
  threads: number;
  steps: ScheduleStep[];
}

type Options = Pick<BackendOptions, 'backend' | 'threads' | 'kvCache' | 'activations'>;

/**
 * The schedules of a plan, `lanes` only where the plan has groups; undefined where the engine, which makes them, cannot
 * run. Loads no weights. `auto` means the CPU.
 */
export function explainedSchedules(
  plan: Plan,
  checkpoint: Checkpoint,
  options: Options,
): { program: Program; schedules: ExplainedSchedule[] } | undefined {
  try {
    return schedulesOf(plan, checkpoint, options);
  } catch (error) {
    if (error instanceof CqilError && error.code === 'NATIVE_ADDON') return undefined;
    throw error;
  }
}

function schedulesOf(
  plan: Plan,
  checkpoint: Checkpoint,
  { backend, threads = defaultThreads(checkpoint), kvCache, activations }: Options,
): { program: Program; schedules: ExplainedSchedule[] } {
  const { config, tensors } = checkpoint;
  const where = backend === 'cuda' ? 'cuda' : 'cpu';
  const program = compilePlan(config, plan);
  const format = chooseActivations(activations, where, tensors, describeMachine);
  const bytes = modelBytes(checkpoint, chooseKvCache(kvCache, format, tensors), cpuLimits());
  const computing = { backend: where, threads } as const;
  const executions = plan.groups.length > 0 ? (['wide', 'lanes'] as const) : (['wide'] as const);
  return {
    program,
    schedules: executions.map((execution) => ({
      backend: where,
      execution,
      threads: where === 'cpu' ? threads : 0,
      steps: scheduleOf(bytes, program, execution, computing, 0),
    })),
  };
}

/** One row for stages in a row that are computed alike. */
export function formatSchedule({ phases }: Program, { backend, execution, threads, steps }: ExplainedSchedule): string {
  const stages = new Map<number, ScheduleStep[]>();
  for (const step of steps) {
    const { stage } = phases[step.phase]!;
    if (stage >= 0) stages.set(stage, [...(stages.get(stage) ?? []), step]);
  }
  const rows: Array<{ first: number; last: number; layers: number[]; cells: string[] }> = [];
  for (const [stage, own] of stages) {
    const layers = phases[own[0]!.phase]!.layers;
    const cells = [
      counted(layers.length, 'layer'),
      whoOf(own, layers.length, backend, threads),
      meetingsOf(own, backend, threads),
    ];
    const before = rows.at(-1);
    if (before && before.cells.join() === cells.join()) {
      before.last = stage;
      before.layers.push(...layers);
    } else rows.push({ first: stage, last: stage, layers: [...layers], cells });
  }
  const where = backend === 'cuda' ? 'on a GPU' : `with ${counted(threads, 'thread')}`;
  return (
    `The first token ${where}, ${execution}:\n\n` +
    formatTable(
      ['stages', 'layers', 'of each stage', 'computed by', backend === 'cuda' ? 'dependent launches' : 'meetings'],
      rows.map(({ first, last, layers, cells }) => [range(first, last), range(layers[0]!, layers.at(-1)!), ...cells]),
    )
  );
}

function whoOf(steps: readonly ScheduleStep[], lanes: number, backend: 'cpu' | 'cuda', threads: number): string {
  const { crews, alone } = steps[0]!;
  if (backend === 'cuda') return crews === 1 ? 'one stream' : `${crews} streams`;
  if (crews > 1) {
    const each = crews === lanes ? 'a lane each' : `up to ${Math.ceil(lanes / crews)} lanes each`;
    return `${crews} ${alone || crews === threads ? 'threads' : 'crews of threads'}, ${each}`;
  }
  return alone || threads === 1 ? 'one thread' : `all ${threads} threads`;
}

/** On the way that has most of them; on a GPU a launch waits for the one before it. */
function meetingsOf(steps: readonly ScheduleStep[], backend: 'cpu' | 'cuda', threads: number): string {
  const onOneWay = steps.filter(({ crew }) => crew === 0);
  if (backend === 'cuda') return String(onOneWay.length);
  if (threads === 1) return '0';
  const everybody = steps.filter(({ meeting }) => meeting === 'everybody').length;
  const several = ({ crews, alone }: ScheduleStep): boolean => !alone && threads > crews;
  const crew = onOneWay.filter((step) => step.meeting === 'crew' && several(step)).length;
  return crew > 0 ? `${everybody}, ${crew} in a crew` : String(everybody);
}

function range(first: number, last: number): string {
  return first === last ? String(first) : `${first}-${last}`;
}
