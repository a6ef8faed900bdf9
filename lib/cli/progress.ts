import { SingleBar } from 'cli-progress';
import type { Io } from './io.js';

/**
 * A bar on the terminal for one piece of work at a time; does nothing where there is no terminal or it is to be quiet.
 */
export class Progress {
  readonly #terminal: NodeJS.WriteStream | undefined;
  #bar: SingleBar | undefined;
  #label = '';

  constructor(io: Io, quiet = false) {
    this.#terminal = quiet ? undefined : io.terminal;
  }

  /** Shows how far `label` is; another label ends the bar before it. */
  update(label: string, done: number, total: number): void {
    if (!this.#terminal) return;
    if (label !== this.#label) this.stop();
    this.#label = label;
    if (!this.#bar) {
      this.#bar = new SingleBar({
        format: `${label} [{bar}] {percentage} %`,
        stream: this.#terminal,
        clearOnComplete: true,
        hideCursor: true,
        barsize: 30,
      });
      this.#bar.start(total, done);
    }
    this.#bar.setTotal(total);
    this.#bar.update(done);
  }

  /** Takes the bar off the terminal. */
  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }
}
