import { setImmediate } from 'node:timers/promises';
import { throwIfAborted } from './abort.js';

// Short enough to stay unnoticed between two frames, long enough that pausing costs nothing.
const SLICE_MS = 5;

/** Keeps long work in JavaScript from holding up the event loop. */
export class Pace {
  readonly #signal: AbortSignal | undefined;
  #until = performance.now() + SLICE_MS;

  constructor(signal?: AbortSignal) {
    this.#signal = signal;
  }

  /** To be awaited between slices of work: now and then, lets everything else have its turn. Rejects with ABORTED. */
  async pause(): Promise<void> {
    if (performance.now() < this.#until) return;
    await setImmediate();
    throwIfAborted(this.#signal);
    this.#until = performance.now() + SLICE_MS;
  }

  /** Does the slices of some work, one after the other, and gives what it returns. Rejects with ABORTED. */
  async through<T>(work: Generator<void, T>): Promise<T> {
    throwIfAborted(this.#signal);
    for (;;) {
      const { done, value } = work.next();
      if (done) return value;
      if (performance.now() >= this.#until) await this.pause();
    }
  }
}
