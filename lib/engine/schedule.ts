import { loadNative } from './addon.js';
import type { PlaceRequest, Program } from './native.js';

/**
 * What a step computes: a phase, or, where lanes run apart, part of one. `join` sums what the lanes of `down` keep.
 * `share_attention` and `reduce` are exchanges between ranks, of attention outputs and of what layers add up.
 */
export type StepKind =
  | 'embed'
  | 'qkv'
  | 'attention'
  | 'attention_out'
  | 'attention_post_norm'
  | 'gate_up'
  | 'down'
  | 'down_apart'
  | 'mlp_post_norm'
  | 'share_attention'
  | 'reduce'
  | 'record'
  | 'join'
  | 'head';

/**
 * A step of a token: who computes what, and who meets at its end. Threads are split in `crews`: thread t is in crew t
 * mod `crews`. The engine executes these steps one by one.
 */
export interface ScheduleStep {
  kind: StepKind;
  /** Index in the program. */
  phase: number;
  /** Layers of the model. */
  layers: readonly number[];
  /** Whether these are all layers of the phase. */
  allLanes: boolean;
  crews: number;
  crew: number;
  /** Whether one thread of the crew computes the step by itself. */
  alone: boolean;
  /** How many lanes before its own it reads attention outputs of: a bypass. A stream of a device waits for those. */
  waitsFor: number;
  /** Who waits for the last of them before going on. */
  meeting: 'nobody' | 'crew' | 'everybody';
}

const KINDS: readonly StepKind[] = [
  'embed',
  'qkv',
  'attention',
  'attention_out',
  'attention_post_norm',
  'gate_up',
  'down',
  'down_apart',
  'mlp_post_norm',
  'share_attention',
  'reduce',
  'record',
  'join',
  'head',
];
const MEETINGS = ['nobody', 'crew', 'everybody'] as const;
const FIELDS = 9;

/** The schedule of one token of a program. */
export function placeToken(program: Program, request: PlaceRequest): ScheduleStep[] {
  const groups = program.phases
    .filter(({ kind, layers }) => kind === 'qkv' && layers.length > 1)
    .map(({ layers }): [number, number] => [layers[0]!, layers.length]);
  const { bypass, bypassMode } = program;
  return readSchedule(loadNative().place({ groups, bypass, bypassMode }, request), program);
}

/** Reads the engine's rows [steps][9] against the program they are of. */
export function readSchedule(rows: Int32Array, program: Program): ScheduleStep[] {
  const steps: ScheduleStep[] = [];
  for (let at = 0; at < rows.length; at += FIELDS) {
    const phase = rows[at + 1]!;
    const firstLane = rows[at + 2]!;
    const lanes = rows[at + 3]!;
    const all = program.phases[phase]!.layers;
    const allLanes = lanes === all.length;
    steps.push({
      kind: KINDS[rows[at]!]!,
      phase,
      layers: allLanes ? all : all.slice(firstLane, firstLane + lanes),
      allLanes,
      crews: rows[at + 4]!,
      crew: rows[at + 5]!,
      alone: rows[at + 6] === 1,
      waitsFor: rows[at + 7]!,
      meeting: MEETINGS[rows[at + 8]!]!,
    });
  }
  return steps;
}
