import { commonPrefix } from '../util/common_prefix.js';
import { CqilError } from '../errors.js';
import { MAX_LOGIT_ROWS, MAX_TRACE, type Program, type SessionHandle } from '../engine/native.js';
import { expectOption, isSignal, readKnownOptions } from '../util/options.js';
import type { Plan } from '../plan/plan.js';
import { MAX_SHORTLIST, type Shortlist } from '../engine/shortlist.js';
import { readTimeline, type Timeline } from '../engine/timeline.js';
import { SessionCache, type SessionHost, type Wanted } from './session_cache.js';
import { WorkQueue } from '../util/work_queue.js';
import { toTokens, type CallOptions, type ShortlistOptions } from './arguments.js';

/** Tokens one call of `Session.trace` takes at most. */
export { MAX_TRACE } from '../engine/native.js';

/** A session as a generation uses it. While the generation holds it, nothing else can change its KV cache. */
export interface HeldSession {
  readonly plan: Plan;
  readonly contextLength: number;
  readonly position: number;
  /** The ids of the tokens in the KV cache. */
  readonly ids: readonly number[];
  /** Resolves when the calls made before are done. Until then these calls may change `position` and `ids`. */
  readonly ready: Promise<void>;
  prefill(ids: ArrayLike<number>, options: CallOptions): Promise<Float32Array>;
  shortlist(ids: ArrayLike<number>, count: number, options: ShortlistOptions): Promise<Shortlist>;
  /** Gives the session back. */
  release(): void;
}

/**
 * One text and its KV cache. Made by `model.createSession()`.
 *
 * Calls are done in the order they were made. Those of several sessions of a model are computed together where they
 * wait for each other, each to the bits that it has alone; long inputs go to the engine in slices, so that others get
 * their share. Methods that return a promise reject with: INVALID_ARGUMENT for anything but token ids of
 * the vocabulary; CONTEXT_OVERFLOW when the tokens do not fit; ABORTED; DISPOSED after `close()` or the model's
 * `dispose()`.
 *
 * While a generation continues in the session, that is from the generation's first use until it has ended or was left,
 * every method that would change the cache is refused with INVALID_ARGUMENT. Only `close()` is not refused: the
 * generation then rejects with DISPOSED.
 */
export class Session {
  /** Positions the KV cache holds. */
  readonly contextLength: number;
  /** The plan this session computes. */
  readonly plan: Plan;
  readonly #cache: SessionCache;
  readonly #vocabSize: number;
  readonly #program: () => Program;
  readonly #calls = new WorkQueue();
  /**
   * The generation's hold. The reference is weak, so that a generation dropped half-way does not keep the session for
   * ever.
   */
  #holder: WeakRef<HeldSession> | undefined;

  /** @internal */
  constructor(
    host: SessionHost,
    handle: SessionHandle,
    options: { contextLength: number; plan: Plan; program: () => Program; programKey: string },
  ) {
    this.#cache = new SessionCache(host, handle, options.contextLength, options.programKey);
    this.#vocabSize = host.vocabSize;
    this.contextLength = options.contextLength;
    this.plan = options.plan;
    this.#program = options.program;
  }

  /** Tokens in the KV cache; the next call continues after them. */
  get position(): number {
    return this.#cache.ids.length;
  }

  /** Appends tokens, at least one; gives the logits after the last, Float32Array [vocabSize]. */
  async prefill(ids: ArrayLike<number>, options: CallOptions = {}): Promise<Float32Array> {
    const { tokens, signal } = this.#read('prefill', ids, options);
    return this.#append(tokens, { output: 'logits' }, signal);
  }

  /** Appends one token; gives the logits after it, Float32Array [vocabSize]. */
  async decode(id: number, options: CallOptions = {}): Promise<Float32Array> {
    return this.prefill([id], options);
  }

  /**
   * Appends tokens, at least one; gives the `count` highest of the logits after the last, 1 to 64 (MAX_SHORTLIST):
   * enough to sample by top-k, without moving and searching a whole vocabulary. Fewer in a smaller vocabulary.
   */
  async shortlist(ids: ArrayLike<number>, count: number, options: ShortlistOptions = {}): Promise<Shortlist> {
    const { tokens, signal, ahead } = this.#read<ShortlistOptions>('shortlist', ids, options, ['signal', 'ahead']);
    expectOption('ahead', ahead, ahead === undefined || typeof ahead === 'boolean', 'true or false');
    expectShortlist(count);
    return this.#append<Shortlist>(tokens, { output: 'shortlist', count, ahead }, signal);
  }

  /**
   * Appends tokens, at least one; gives Float32Array [ids.length − 1]: entry i is the log-probability, in nats, of
   * ids[i + 1] after everything up to ids[i].
   */
  async score(ids: ArrayLike<number>, options: CallOptions = {}): Promise<Float32Array> {
    const { tokens, signal } = this.#read('score', ids, options);
    return this.#calls.run(async () => {
      const scores = new Float32Array(tokens.length - 1);
      await this.#cache.appendInSlices(
        tokens,
        signal,
        (slice, from) => {
          // The first token of the next slice is scored here, after the last of this one.
          const next = tokens[from + slice.length];
          return { output: slice.length > 1 || next !== undefined ? 'scores' : 'none', next };
        },
        (part, from) => {
          if (part) scores.set(part as Float32Array, from);
        },
      );
      return scores;
    });
  }

  /**
   * Appends 1 to 32 (MAX_TRACE) tokens; gives Float32Array [nLayers][3][ids.length][dim]: of each layer its input x,
   * what its attention block adds, a, and what its MLP block adds, m, under the session's plan. Layers of a group have
   * the same input. A layer by itself passes on x + a + m, a group what the formula makes of its members.
   */
  async trace(ids: ArrayLike<number>, options: CallOptions = {}): Promise<Float32Array> {
    const { tokens, signal } = this.#read('trace', ids, options);
    expectAtMost('The number of tokens to trace', tokens.length, MAX_TRACE);
    return this.#append(tokens, { output: 'trace' }, signal, true);
  }

  /**
   * Appends 1 to 32 (MAX_LOGIT_ROWS) tokens; gives what `shortlist` gives, after each of them: enough to verify a draft.
   */
  async shortlists(ids: ArrayLike<number>, count: number, options: CallOptions = {}): Promise<Shortlist[]> {
    const { tokens, signal } = this.#read('shortlists', ids, options);
    expectShortlist(count);
    expectAtMost('The number of tokens to give shortlists of', tokens.length, MAX_LOGIT_ROWS);
    return this.#append<Shortlist[]>(tokens, { output: 'shortlist', count, listed: tokens.length }, signal, true);
  }

  /** Appends 1 to 32 (MAX_LOGIT_ROWS) tokens; gives the logits after each, Float32Array [ids.length][vocabSize]. */
  async logits(ids: ArrayLike<number>, options: CallOptions = {}): Promise<Float32Array> {
    const { tokens, signal } = this.#read('logits', ids, options);
    expectAtMost('The number of tokens to give logits of', tokens.length, MAX_LOGIT_ROWS);
    return this.#append(tokens, { output: 'all_logits' }, signal, true);
  }

  /**
   * Appends one token, as `decode` does, and says when each thread computed what. Rejects also with BACKEND_UNAVAILABLE
   * on a backend that keeps no times.
   */
  async timeline(id: number, options: CallOptions = {}): Promise<Timeline> {
    const { tokens, signal } = this.#read('timeline', [id], options);
    return this.#calls.run(async () => readTimeline(await this.#cache.appendTimed(tokens, signal), this.#program()));
  }

  /** Forgets every token from position `n` on; 0 forgets all. Not while a call of this session is in flight. */
  truncate(n: number): void {
    this.#expectIdle('truncate');
    expectOption(
      'The length to truncate to',
      n,
      Number.isSafeInteger(n) && n >= 0 && n <= this.position,
      `an integer from 0 to the position, ${this.position}`,
    );
    this.#cache.ids.length = n;
  }

  /**
   * Forgets every token from the first on that differs from `ids`, and further ones until at least one of `ids` is left.
   * Gives those of `ids` that are left, to be appended. A conversation that was rendered anew is then computed only from
   * where it is new. Throws INVALID_ARGUMENT, also while a call of this session is in flight, and CONTEXT_OVERFLOW when
   * `ids` do not fit.
   */
  rewind(ids: ArrayLike<number>): Int32Array {
    this.#expectIdle('rewind');
    const tokens = toTokens(ids, this.#vocabSize, this.contextLength);
    this.truncate(Math.min(commonPrefix([this.#cache.ids, tokens]), tokens.length - 1));
    return tokens.slice(this.position);
  }

  /**
   * @internal Takes the session for a generation. Calls made before are done first; until the session is released, no
   * other call can change the cache. Throws INVALID_ARGUMENT when another generation holds the session; DISPOSED.
   */
  hold(): HeldSession {
    this.#cache.expectOpen();
    if (this.#holder?.deref())
      throw new CqilError(
        'INVALID_ARGUMENT',
        'The session is in use by another generation; expected that one to be done first.',
      );
    const { contextLength, plan } = this;
    const position = (): number => this.position;
    const held: HeldSession = {
      plan,
      contextLength,
      get position() {
        return position();
      },
      ids: this.#cache.ids,
      ready: this.#calls.idle(),
      prefill: (ids, { signal }) => this.#append(Int32Array.from(ids), { output: 'logits' }, signal),
      shortlist: (ids, count, { signal, ahead }) =>
        this.#append(Int32Array.from(ids), { output: 'shortlist', count, ahead }, signal),
      release: () => {
        if (this.#holder?.deref() === held) this.#holder = undefined;
      },
    };
    this.#holder = new WeakRef(held);
    return held;
  }

  /**
   * Frees the KV cache; calls in flight reject with DISPOSED, and so does a generation in this session. Closing again
   * does nothing.
   */
  close(): void {
    this.#cache.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Appends the tokens in this call's turn, in slices unless `whole`, and gives what the last slice put out. */
  #append<T = Float32Array>(
    tokens: Int32Array,
    wanted: Wanted,
    signal: AbortSignal | undefined,
    whole = false,
  ): Promise<T> {
    return this.#calls.run(() => this.#cache.append<T>(tokens, wanted, signal, whole));
  }

  #expectFree(call: string): void {
    this.#cache.expectOpen();
    if (this.#holder?.deref())
      throw new CqilError(
        'INVALID_ARGUMENT',
        `${call} was called while a generation is using this session; expected the generation to be done, or its ` +
          'loop left, first.',
      );
  }

  #expectIdle(call: string): void {
    this.#expectFree(call);
    if (this.#calls.size > 0)
      throw new CqilError(
        'INVALID_ARGUMENT',
        `${call} was called while a call of this session is in flight; expected it to be awaited first.`,
      );
  }

  /** The tokens and options of a call, copied and checked. */
  #read<T extends CallOptions>(
    call: string,
    ids: ArrayLike<number>,
    given: T,
    names = ['signal'],
  ): T & { tokens: Int32Array } {
    this.#expectFree(call);
    const options = readKnownOptions(`session.${call}`, given, names);
    expectOption('signal', options.signal, isSignal(options.signal), 'an AbortSignal');
    return { ...options, tokens: toTokens(ids, this.#vocabSize, this.contextLength) };
  }
}

function expectShortlist(count: number): void {
  expectOption(
    'The length of the shortlist',
    count,
    Number.isInteger(count) && count >= 1 && count <= MAX_SHORTLIST,
    `an integer from 1 to ${MAX_SHORTLIST}`,
  );
}

function expectAtMost(name: string, count: number, most: number): void {
  expectOption(name, count, count <= most, `at most ${most}`);
}
