import { setImmediate } from 'node:timers/promises';
import { throwIfAborted } from '../abort.js';

const SLICE_MS = 8;

/** Keeps long work in JavaScript from holding up the event loop. */
export class Pace {
  readonly #signal: AbortSignal | undefined;
  #until = performance.now() + SLICE_MS;

  constructor(signal?: AbortSignal) {
    this.#signal = signal;
  }

  /** To be awaited between short steps: now and then, lets everything else have its turn. Rejects with ABORTED. */
  async step(): Promise<void> {
    if (performance.now() < this.#until) return;
    await setImmediate();
    throwIfAborted(this.#signal);
    this.#until = performance.now() + SLICE_MS;
  }
}
