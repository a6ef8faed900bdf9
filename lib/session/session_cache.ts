import { onAbort, throwIfAborted } from '../util/abort.js';
import { CqilError } from '../errors.js';
import type { ForwardRequest, NativeAddon, NativeTimeline, SessionHandle } from '../engine/native.js';
import { overflow } from './arguments.js';
import type { Batcher } from './batcher.js';

/** What a session uses of its model. */
export interface SessionHost {
  readonly native: Pick<NativeAddon, 'timeline' | 'cancel'>;
  /** One for all sessions of a model: one team of threads serves them. */
  readonly batcher: Batcher;
  readonly vocabSize: number;
  /** Frees the native session. */
  release(handle: SessionHandle): void;
}

/** What a forward is asked for besides its tokens and their place. */
export type Wanted = Pick<ForwardRequest, 'output' | 'count' | 'listed' | 'ahead' | 'next'>;

/** A session's KV cache: the tokens in it, how more get there, how that is stopped, and when it is freed. */
export class SessionCache {
  /** The ids of the tokens in the cache. */
  readonly ids: number[] = [];
  /** Positions it holds. */
  readonly contextLength: number;
  readonly #host: SessionHost;
  readonly #handle: SessionHandle;
  readonly #program: string;
  #closed = false;
  #inFlight = false;

  /** @param program - Sessions of a model with the same can be computed together. */
  constructor(host: SessionHost, handle: SessionHandle, contextLength: number, program: string) {
    this.#host = host;
    this.#handle = handle;
    this.contextLength = contextLength;
    this.#program = program;
  }

  /** Appends the tokens, in slices unless `whole`, and gives what the last slice put out. */
  async append<T = Float32Array>(
    tokens: Int32Array,
    wanted: Wanted,
    signal: AbortSignal | undefined,
    whole = false,
  ): Promise<T> {
    let last: unknown;
    await this.appendInSlices(
      tokens,
      signal,
      (ids, from, alone) => {
        if (from + ids.length < tokens.length) return { output: 'none' };
        // Where other work is waiting for its turn, it comes next.
        return wanted.ahead ? { ...wanted, ahead: alone } : wanted;
      },
      (output) => (last = output),
      whole,
    );
    return last as T;
  }

  /**
   * Appends the tokens in slices, or in one if `whole`. `wanted` says what a forward gives after the slice that begins
   * with token `from`; `alone`: no other call is waiting. `give` is told what it gave.
   */
  async appendInSlices(
    tokens: Int32Array,
    signal: AbortSignal | undefined,
    wanted: (slice: Int32Array, from: number, alone: boolean) => Wanted,
    give: (output: unknown, from: number) => void,
    whole = false,
  ): Promise<void> {
    this.expectOpen();
    this.#expectRoom(tokens.length);
    for (let from = 0; from < tokens.length;) {
      let slice = new Int32Array();
      let forget = (): void => undefined;
      const begin = (room: number, alone: boolean): ForwardRequest => {
        throwIfAborted(signal);
        this.expectOpen();
        slice = tokens.slice(from, from + room);
        const request = { ids: slice, position: this.ids.length, ...wanted(slice, from, alone) };
        forget = this.#enter(signal);
        return request;
      };
      const call = { session: this.#handle, program: this.#program, tokens: tokens.length - from, whole, begin };
      const output = await this.#leave(this.#host.batcher.run(call), signal, () => forget());
      this.ids.push(...slice);
      give(output, from);
      from += slice.length;
    }
  }

  /** Appends one token and says when each thread computed what. */
  async appendTimed(token: Int32Array, signal: AbortSignal | undefined): Promise<NativeTimeline> {
    this.expectOpen();
    this.#expectRoom(token.length);
    const noted = await this.#host.batcher.run(() => {
      throwIfAborted(signal);
      this.expectOpen();
      const request: ForwardRequest = { ids: token, position: this.ids.length, output: 'logits' };
      const forget = this.#enter(signal);
      return this.#leave(this.#host.native.timeline(this.#handle, request), signal, forget);
    });
    this.ids.push(...token);
    return noted;
  }

  /** Calls under way reject with DISPOSED. Closing again does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    // A forward in flight still uses the cache: it is stopped, and frees it when it has.
    if (this.#inFlight) this.#host.native.cancel(this.#handle);
    else this.#host.release(this.#handle);
  }

  /** Throws DISPOSED once it is closed. */
  expectOpen(): void {
    if (this.#closed)
      throw new CqilError(
        'DISPOSED',
        'The session is closed; expected an open session of a model that is not disposed.',
      );
  }

  #expectRoom(count: number): void {
    const { length } = this.ids;
    if (length + count > this.contextLength) throw overflow(count, this.contextLength, length);
  }

  /** From here until the call is done, an abort or close() stops it. */
  #enter(signal: AbortSignal | undefined): () => void {
    const forget = onAbort(signal, () => this.#host.native.cancel(this.#handle));
    this.#inFlight = true;
    return () => {
      forget();
      this.#inFlight = false;
      if (this.#closed) this.#host.release(this.#handle);
    };
  }

  async #leave<T>(done: Promise<T>, signal: AbortSignal | undefined, forget: () => void): Promise<T> {
    try {
      return await done;
    } catch (error) {
      this.expectOpen();
      throwIfAborted(signal);
      throw error;
    } finally {
      forget();
    }
  }
}
