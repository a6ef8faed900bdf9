/** Runs asynchronous tasks one at a time, in the order they came; a task that fails does not hold up the next. */
export class WorkQueue {
  #last: Promise<unknown> = Promise.resolve();
  #waiting = 0;

  /** Tasks queued or running. */
  get size(): number {
    return this.#waiting;
  }

  /** Settles as the task does. */
  run<T>(task: () => Promise<T>): Promise<T> {
    this.#waiting++;
    const done = this.#last.then(task).finally(() => this.#waiting--);
    this.#last = done.catch(() => undefined);
    return done;
  }

  /** Resolves when everything queued until now is done. */
  async idle(): Promise<void> {
    await this.#last;
  }
}
