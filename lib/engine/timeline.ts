import type { PhaseKind, Program } from './native.js';

/** One thread's part of one phase. */
export interface TimelineSpan {
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
  /** When the last thread was done, in nanoseconds since the forward began. */
  durationNs: number;
  /** By thread, then by time. */
  spans: TimelineSpan[];
}

const NUMBERS_PER_SPAN = 5;

/** Reads the engine's spans [spans][5] against the program they are of. */
export function readTimeline(numbers: Float64Array, { phases }: Program): Timeline {
  const spans: TimelineSpan[] = [];
  for (let at = 0; at < numbers.length; at += NUMBERS_PER_SPAN) {
    const [phase, thread, lane, beginNs, endNs] = numbers.subarray(at, at + NUMBERS_PER_SPAN) as unknown as [
      number,
      number,
      number,
      number,
      number,
    ];
    const { kind, stage, layers } = phases[phase]!;
    spans.push({
      phase,
      kind,
      stage,
      thread,
      beginNs,
      endNs,
      ...(lane < 0 ? { layers } : { lane, layers: [layers[lane]!] }),
    });
  }
  return {
    execution: spans.some(({ lane }) => lane !== undefined) ? 'lanes' : 'wide',
    threads: new Set(spans.map(({ thread }) => thread)).size,
    durationNs: spans.reduce((last, { endNs }) => Math.max(last, endNs), 0),
    spans,
  };
}
