import { fork, type ChildProcess } from 'node:child_process';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { orAborted } from '../util/abort.js';
import { CqilError } from '../errors.js';
import { loadNative } from '../engine/addon.js';
import type { ExchangeEnd, ModelSpec, RankSpec } from '../engine/native.js';
import type { RankAnswer, RankOrder } from './order.js';

const FOLLOWER = path.join(__dirname, 'follower.js');
// To start Node.js and load the addon, on a machine that has much else to do.
const MEET_WITHIN_MS = 60_000;
const TERMINATE_AFTER_MS = 2_000;
const KILL_AFTER_MS = 4_000;

/** The other ranks of a model, which this process has started. They end with it, or with `end`. */
export class Followers {
  readonly #exchange: ExchangeEnd;
  readonly #size: number;
  readonly #processes: ChildProcess[] = [];
  readonly #loaded: Array<Promise<void>> = [];
  readonly #ended: Array<Promise<void>> = [];
  #ending = false;

  /** Throws BACKEND_UNAVAILABLE where processes cannot share memory; OUT_OF_MEMORY. */
  constructor(size: number) {
    this.#size = size;
    this.#exchange = loadNative().openExchange({ kind: 'shm', rank: 0, size });
    for (let rank = 1; rank < size; rank++) this.#start(rank);
  }

  /**
   * Tells them what to load, and waits until all have come. Gives what this process loads with. Rejects with RANK_LOST.
   */
  async join(spec: Omit<ModelSpec, 'rank'>, share: Omit<RankSpec, 'exchange'>): Promise<RankSpec> {
    const { address, handle } = this.#exchange;
    for (const [index, child] of this.#processes.entries()) {
      const order: RankOrder = { rank: index + 1, size: this.#size, address, meetWithin: MEET_WITHIN_MS, spec, share };
      // That a process has ended is told by its exit.
      child.send(order, () => {});
    }
    await this.#exchange.meet(MEET_WITHIN_MS);
    return { ...share, exchange: handle };
  }

  /** Resolves when all have loaded their shares. Rejects with what one cannot load, RANK_LOST or ABORTED. */
  async loaded(signal?: AbortSignal): Promise<void> {
    const all = Promise.all(this.#loaded);
    await (signal ? orAborted(all, signal) : all);
    // From here on a program may end without having disposed of its model.
    for (const child of this.#processes) {
      child.unref();
      child.channel?.unref();
    }
  }

  /** Resolves when none is left. What they still compute they need not finish. */
  async end(): Promise<void> {
    this.#ending = true;
    for (const child of this.#processes) child.ref();
    this.#exchange.close();
    const all = Promise.all(this.#ended);
    const signals: Array<[number, NodeJS.Signals]> = [
      [TERMINATE_AFTER_MS, 'SIGTERM'],
      [KILL_AFTER_MS - TERMINATE_AFTER_MS, 'SIGKILL'],
    ];
    for (const [ms, signal] of signals) {
      const patience = new AbortController();
      const waited = sleep(ms, true, { signal: patience.signal }).catch(() => false);
      if (!(await Promise.race([all.then(() => false), waited]))) {
        patience.abort();
        return;
      }
      for (const child of this.#processes) child.kill(signal);
    }
    await all;
  }

  #start(rank: number): void {
    const child = fork(FOLLOWER, [], {
      execArgv: [],
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      env: { ...process.env, ...(process.versions['electron'] && { ELECTRON_RUN_AS_NODE: '1' }) },
    });
    this.#processes.push(child);
    const loaded = new Promise<void>((resolve, reject) => {
      child.once('message', (answer: RankAnswer) => {
        if ('ready' in answer) return resolve();
        reject(this.#lose(rank, answer.error.message, answer.error.code));
      });
      const ended = (how: string) => reject(this.#lose(rank, how));
      child.once('error', (error) => ended(`cannot be started: ${error.message}`));
      child.once('exit', (code, signal) =>
        ended(`(pid ${child.pid}) ended ${signal ? `by ${signal}` : `with ${code}`}`),
      );
    });
    loaded.catch(() => {});
    this.#loaded.push(loaded);
    this.#ended.push(
      new Promise((resolve) => {
        child.once('exit', () => resolve());
        child.once('error', () => resolve());
      }),
    );
  }

  /** Nobody waits for this rank any more. Gives the error. */
  #lose(rank: number, how: string, code?: CqilError['code']): CqilError {
    const message = code ? `Rank ${rank}: ${how}` : `Rank ${rank} ${how.replace(/\.?$/, '.')}`;
    if (!this.#ending) this.#exchange.abort(rank, message);
    return new CqilError(code ?? 'RANK_LOST', message);
  }
}
