import { setImmediate } from 'node:timers/promises';
import {
  MAX_BATCH,
  type ForwardRequest,
  type NativeAddon,
  type Outcome,
  type SessionHandle,
} from '../engine/native.js';

/** A session's wish to append tokens. */
export interface Call {
  readonly session: SessionHandle;
  /** Calls of the same program can be computed together. */
  readonly program: string;
  /** Tokens it has to append, at least one. */
  readonly tokens: number;
  /** Whether they are to be appended in one forward; then at most MAX_BATCH. */
  readonly whole: boolean;
  /**
   * The forward of at most `room` tokens, made when the call's turn has come; `alone`: no other is waiting. What it
   * throws, the call rejects with.
   */
  begin(room: number, alone: boolean): ForwardRequest;
}

interface Waiting {
  /** A call, or something else that uses the threads. */
  task: Call | (() => Promise<unknown>);
  resolve: (value: unknown) => void;
  reject: (reason: unknown) => void;
}

type WaitingCall = Waiting & { task: Call };

/**
 * Serves the calls of a model's sessions. One team of threads, or one device, computes them, so one forward is under way
 * at a time. The call that has waited longest comes next, and those of its program that wait too are computed with it:
 * the weights are read once for them all. Each has its own outcome, and the bits that it has alone. Where tokens of several calls do not fit
 * one forward, each has a share of it, so that short prompts are not kept waiting by long ones.
 */
export class Batcher {
  readonly #native: Pick<NativeAddon, 'forward' | 'forwardTogether'>;
  /** Most calls of a forward. */
  readonly #most: number;
  #waiting: Waiting[] = [];
  #serving = false;

  /** @param most - 1 where a backend computes calls one after the other anyway. */
  constructor(native: Pick<NativeAddon, 'forward' | 'forwardTogether'>, most: number) {
    this.#native = native;
    this.#most = most;
  }

  /**
   * Resolves to what a forward of some of the call's tokens gives; how many, `begin` was told. Another task is done in
   * its turn, while no forward is under way.
   */
  run(task: Call): Promise<unknown>;
  run<T>(task: () => Promise<T>): Promise<T>;
  run(task: Waiting['task']): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ task, resolve, reject });
      if (!this.#serving) void this.#serve();
    });
  }

  /** Resolves when everything asked for until now is done. */
  idle(): Promise<void> {
    return this.run(() => Promise.resolve());
  }

  async #serve(): Promise<void> {
    this.#serving = true;
    // Prompts that are given in the same turn of the event loop begin together. One token waits for nobody.
    const { task: first } = this.#waiting[0]!;
    if (typeof first === 'function' || first.tokens !== 1) await setImmediate();
    while (this.#waiting.length > 0) {
      const next = this.#waiting.shift()!;
      const { task } = next;
      const others = typeof task === 'function' || this.#waiting.length === 0 ? [] : this.#othersWith(task);
      if (others.length === 0) await this.#serveOne(next);
      else await this.#serveTogether([next as WaitingCall, ...others]);
      // Those that have been served are about to ask for what follows, and are then served with the others.
      if (others.length > 0 || this.#waiting.length > 0) await setImmediate();
    }
    this.#serving = false;
  }

  /** Calls of the same program, as many as there is room for beside the one that comes next. */
  #othersWith(first: Call): WaitingCall[] {
    const others: WaitingCall[] = [];
    let room = MAX_BATCH - least(first);
    this.#waiting = this.#waiting.filter((waiting) => {
      const { task } = waiting;
      if (typeof task === 'function' || task.program !== first.program || least(task) > room) return true;
      if (1 + others.length === this.#most) return true;
      others.push(waiting as WaitingCall);
      room -= least(task);
      return false;
    });
    return others;
  }

  async #serveOne({ task, resolve, reject }: Waiting): Promise<void> {
    try {
      if (typeof task === 'function') return resolve(await task());
      const { session } = task;
      const request = task.begin(Math.min(task.tokens, MAX_BATCH), this.#waiting.length === 0);
      if (request.listed === undefined) return resolve(await this.#native.forward(session, request));
      const [outcome] = await this.#native.forwardTogether([{ session, request }]);
      resolve(valueOf(outcome!, request));
    } catch (error) {
      reject(error);
    }
  }

  async #serveTogether(calls: readonly WaitingCall[]): Promise<void> {
    const shares = share(calls.map(({ task }) => task));
    const begun: Array<{ waiting: Waiting; session: SessionHandle; request: ForwardRequest }> = [];
    calls.forEach((waiting, i) => {
      const { task } = waiting;
      try {
        begun.push({ waiting, session: task.session, request: task.begin(shares[i]!, false) });
      } catch (error) {
        waiting.reject(error);
      }
    });
    if (begun.length === 0) return;
    try {
      const outcomes = await this.#native.forwardTogether(begun.map(({ session, request }) => ({ session, request })));
      for (const [i, { waiting, request }] of begun.entries()) {
        const outcome = outcomes[i]!;
        if ('error' in outcome) waiting.reject(outcome.error);
        else waiting.resolve(valueOf(outcome, request));
      }
    } catch (error) {
      for (const { waiting } of begun) waiting.reject(error);
    }
  }
}

/** What a call is given. Throws the error of an outcome that is one. */
function valueOf(outcome: Outcome, { listed }: ForwardRequest): unknown {
  if ('error' in outcome) throw outcome.error;
  const { value } = outcome;
  // One shortlist is given as it is, unless a list was asked for.
  return Array.isArray(value) && listed === undefined ? value[0] : value;
}

const least = (call: Call): number => (call.whole ? call.tokens : 1);

/** How many tokens each of the calls may append: equal shares of a forward, and what some leave goes to others. */
function share(calls: readonly Call[]): number[] {
  const shares = calls.map(least);
  let room = MAX_BATCH - shares.reduce((sum, n) => sum + n, 0);
  const order = shares.map((_, i) => i).sort((a, b) => calls[a]!.tokens - calls[b]!.tokens);
  order.forEach((i, k) => {
    const more = Math.min(calls[i]!.tokens - shares[i]!, Math.floor(room / (order.length - k)));
    shares[i]! += more;
    room -= more;
  });
  return shares;
}
