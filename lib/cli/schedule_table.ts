import { modelBytes, scheduleOf, waitsIn } from '../analysis/latency/work.js';
import type { Checkpoint } from '../checkpoint/types.js';
import { cpuLimits } from '../engine/machine.js';
import type { Program } from '../engine/native.js';
import type { ScheduleStep } from '../engine/schedule.js';
import { compilePlan } from '../model/model.js';
import type { Plan } from '../plan/plan.js';
import { counted } from '../util/count.js';
import { formatTable } from './table.js';
import { ifEngine, placementOn, type UnloadedOptions } from './unloaded.js';

/** How the first token of a text is computed in one execution. */
export interface ExplainedSchedule {
  backend: 'cpu' | 'cuda';
  execution: 'wide' | 'lanes';
  /** 0 on a GPU. */
  threads: number;
  steps: ScheduleStep[];
}

/**
 * The schedules of a plan, `lanes` only where the plan has groups; undefined where the engine, which makes them, cannot
 * run. Loads no weights. `auto` means the CPU.
 */
export function explainedSchedules(
  plan: Plan,
  checkpoint: Checkpoint,
  options: UnloadedOptions,
): Promise<{ program: Program; schedules: ExplainedSchedule[] } | undefined> {
  return ifEngine(() => {
    const placement = placementOn(options.backend === 'cuda' ? 'cuda' : 'cpu', checkpoint, options);
    const { backend, threads, kvCache } = placement;
    const program = compilePlan(checkpoint.config, plan);
    const bytes = modelBytes(checkpoint, kvCache, cpuLimits());
    const executions = plan.groups.length > 0 ? (['wide', 'lanes'] as const) : (['wide'] as const);
    const schedules = executions.map((execution) => ({
      backend,
      execution,
      threads: backend === 'cpu' ? threads : 0,
      steps: scheduleOf(bytes, program, execution, placement, 0),
    }));
    return { program, schedules };
  });
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

/** On a GPU a launch waits for the one before it. */
function meetingsOf(steps: readonly ScheduleStep[], backend: 'cpu' | 'cuda', threads: number): string {
  if (backend === 'cuda') return String(steps.filter(({ crew }) => crew === 0).length);
  const { waits, crewWaits } = waitsIn(steps, threads);
  return crewWaits > 0 ? `${waits}, ${crewWaits} in a crew` : String(waits);
}

function range(first: number, last: number): string {
  return first === last ? String(first) : `${first}-${last}`;
}
