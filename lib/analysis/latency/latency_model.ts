import type { PhaseKind, Program } from '../../engine/native.js';
import { nonNegativeLeastSquares } from './least_squares.js';
import {
  phaseWork,
  sumWork,
  WORK_KINDS,
  type ModelBytes,
  type Computing,
  type DecodePosition,
  type Work,
} from './work.js';

/** Milliseconds per unit of each kind of work. */
export type Rates = Record<keyof Work, number>;

/** A forward of one token that was timed. */
export interface TimedDecode {
  program: Program;
  execution: 'wide' | 'lanes';
  at: DecodePosition;
  ms: number;
}

export interface Prediction {
  /** The faster one, where either was allowed. */
  execution: 'wide' | 'lanes';
  msPerToken: number;
  /** Times all threads wait for the last of them. */
  waits: number;
  /** How many phases of each kind the program has, and what they take together, in the order they first come. */
  phases: Array<{ kind: PhaseKind; count: number; ms: number }>;
}

/**
 * Prices a program phase by phase: T = Σ over phases Σ over kinds of work (amount · rate). Rates are what a short
 * calibration gives: time per wait, and per byte for weights that all threads stream, weights that crews stream apart,
 * the output projection, and keys and values. What a call costs besides is in the rates of weights, of which every
 * program reads the same.
 */
export class LatencyModel {
  readonly rates: Readonly<Rates>;
  readonly #bytes: ModelBytes;
  readonly #computing: Computing;

  constructor(bytes: ModelBytes, computing: Computing, rates: Rates) {
    this.#bytes = bytes;
    this.#computing = computing;
    this.rates = rates;
  }

  /** Fits rates, none negative, to timed forwards by least squares of relative errors. */
  static fit(bytes: ModelBytes, computing: Computing, timed: readonly TimedDecode[]): LatencyModel {
    const rows = timed.map(({ program, execution, at, ms }) => {
      const total = sumWork(phaseWork(bytes, program, execution, computing, at));
      return WORK_KINDS.map((kind) => total[kind] / ms);
    });
    const fitted = nonNegativeLeastSquares(
      rows,
      timed.map(() => 1),
    );
    return new LatencyModel(
      bytes,
      computing,
      Object.fromEntries(WORK_KINDS.map((kind, i) => [kind, fitted[i]!])) as Rates,
    );
  }

  /** Time of one token of a program; with `auto`, in the execution that takes less. */
  predict(program: Program, execution: 'auto' | 'wide' | 'lanes', at: DecodePosition): Prediction {
    if (execution === 'auto') {
      const [wide, lanes] = [this.predict(program, 'wide', at), this.predict(program, 'lanes', at)];
      return lanes.msPerToken < wide.msPerToken ? lanes : wide;
    }
    const parts = phaseWork(this.#bytes, program, execution, this.#computing, at);
    const phases = new Map<PhaseKind, { kind: PhaseKind; count: number; ms: number }>();
    for (const [i, { kind }] of program.phases.entries()) {
      const sum = phases.get(kind) ?? { kind, count: 0, ms: 0 };
      sum.count++;
      sum.ms += WORK_KINDS.reduce((ms, of) => ms + parts[i]![of] * this.rates[of], 0);
      phases.set(kind, sum);
    }
    const kinds = [...phases.values()];
    return {
      execution,
      msPerToken: kinds.reduce((sum, { ms }) => sum + ms, 0),
      waits: sumWork(parts).waits,
      phases: kinds,
    };
  }
}
