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
  /** Undefined: something else than a forward. */
  call: Call | undefined;
  run: () => Promise<void>;
  resolve: (value: unknown) => void;
  reject: (reason: unknown) => void;
}

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

  /** Resolves to what a forward of some of the call's tokens gives; how many, `begin` was told. */
  forward(call: Call): Promise<unknown> {
    return this.#enter(call, () => Promise.resolve());
  }

  /** Does something else in its turn, while no forward is under way. */
  run<T>(task: () => Promise<T>): Promise<T> {
    let result: T;
    const done = this.#enter(undefined, async () => {
      result = await task();
    });
    return done.then(() => result);
  }

  /** Resolves when everything asked for until now is done. */
  async idle(): Promise<void> {
    await this.run(() => Promise.resolve());
  }

  #enter(call: Call | undefined, run: () => Promise<void>): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ call, run, resolve, reject });
      if (!this.#serving) void this.#serve();
    });
  }

  async #serve(): Promise<void> {
    this.#serving = true;
    // Prompts that are given in the same turn of the event loop begin together. One token waits for nobody.
    if (this.#waiting[0]!.call?.tokens !== 1) await setImmediate();
    while (this.#waiting.length > 0) {
      const taken = this.#take();
      if (taken[0]!.call) await this.#compute(taken);
      else await settle(taken[0]!, taken[0]!.run());
      // Those that have been served are about to ask for what follows, and are then served with the others.
      if (taken.length > 1 || this.#waiting.length > 0) await setImmediate();
    }
    this.#serving = false;
  }

  /** The calls that come next. */
  #take(): Waiting[] {
    const [first] = this.#waiting;
    const taken: Waiting[] = [];
    let room = MAX_BATCH;
    this.#waiting = this.#waiting.filter((waiting) => {
      const { call } = waiting;
      const fits = taken.length < this.#most && (call ? least(call) <= room : false);
      const together = waiting === first || (first!.call && call && call.program === first!.call.program && fits);
      if (!together) return true;
      taken.push(waiting);
      if (call) room -= least(call);
      return false;
    });
    return taken;
  }

  async #compute(taken: Waiting[]): Promise<void> {
    const alone = taken.length === 1 && this.#waiting.length === 0;
    const shares = share(taken.map(({ call }) => call!));
    const begun: Array<{ waiting: Waiting; session: SessionHandle; request: ForwardRequest }> = [];
    taken.forEach((waiting, i) => {
      const call = waiting.call!;
      try {
        begun.push({ waiting, session: call.session, request: call.begin(shares[i]!, alone) });
      } catch (error) {
        waiting.reject(error);
      }
    });
    if (begun.length === 0) return;
    const [{ waiting, session, request }] = begun as [(typeof begun)[0]];
    if (begun.length === 1 && request.listed === undefined)
      return settle(waiting, this.#native.forward(session, request));
    let outcomes: Outcome[];
    try {
      outcomes = await this.#native.forwardTogether(begun.map(({ session, request }) => ({ session, request })));
    } catch (error) {
      for (const { waiting } of begun) waiting.reject(error);
      return;
    }
    outcomes.forEach((outcome, i) => {
      const { waiting, request } = begun[i]!;
      if ('error' in outcome) return waiting.reject(outcome.error);
      const { value } = outcome;
      waiting.resolve(Array.isArray(value) && request.listed === undefined ? value[0] : value);
    });
  }
}

async function settle({ resolve, reject }: Waiting, done: Promise<unknown>): Promise<void> {
  try {
    resolve(await done);
  } catch (error) {
    reject(error);
  }
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
