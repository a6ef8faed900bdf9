import type { NativeTimeline, PhaseKind, Program } from './native.js';
import { readSchedule, type ScheduleStep } from './schedule.js';

/** One thread's part of one step. */
export interface TimelineSpan {
  /** Index of the step in the schedule. */
  step: number;
  /** Index of the phase in the program. */
  phase: number;
  kind: PhaseKind;
  /** Stage index; −1 for embed and head. */
  stage: number;
  /**
   * The layers this was for: one where lanes run apart, all of the stage where they run together; none for embed and
   * head.
   */
  layers: number[];
  /** The lane that ran, where lanes run apart; absent for work on all of them, and for the sum that joins them. */
  lane?: number;
  /** Thread of the engine, from 0. */
  thread: number;
  /** Nanoseconds since the forward began. */
  beginNs: number;
  endNs: number;
}

/** When each thread computed what of one forward pass. Between its spans a thread waits for the others. */
export interface Timeline {
  /** How the lanes of a stage ran: `lanes` where each had threads of its own. */
  execution: 'wide' | 'lanes';
  /** Threads that took part. */
  threads: number;
  /** The steps that were executed. */
  schedule: ScheduleStep[];
  /** When the last thread was done, in nanoseconds since the forward began. */
  durationNs: number;
  /** By thread, then by time. */
  spans: TimelineSpan[];
}

const NUMBERS_PER_SPAN = 4;

/** Reads what the engine noted against the program it is of. */
export function readTimeline({ spans: numbers, schedule: rows }: NativeTimeline, program: Program): Timeline {
  const schedule = readSchedule(rows, program);
  const spans: TimelineSpan[] = [];
  for (let at = 0; at < numbers.length; at += NUMBERS_PER_SPAN) {
    const [step, thread, beginNs, endNs] = numbers.subarray(at, at + NUMBERS_PER_SPAN) as unknown as [
      number,
      number,
      number,
      number,
    ];
    const { phase, layers, allLanes } = schedule[step]!;
    const { kind, stage, layers: all } = program.phases[phase]!;
    const lane = allLanes ? {} : { lane: all.indexOf(layers[0]!) };
    spans.push({ step, phase, kind, stage, thread, beginNs, endNs, layers: [...layers], ...lane });
  }
  return {
    execution: schedule.some(({ allLanes }) => !allLanes) ? 'lanes' : 'wide',
    threads: new Set(spans.map(({ thread }) => thread)).size,
    schedule,
    durationNs: spans.reduce((last, { endNs }) => Math.max(last, endNs), 0),
    spans,
  };
}
