import { abortError, throwIfAborted } from './abort.js';
import { CqilError } from './errors.js';
import { expectOption, expectOptionNames, isCount, isSignal } from './options.js';
import { countStages, type PlanInput } from './plan.js';
import { Sampler, type SamplingOptions, type TokenLogprob } from './sampler.js';
import { toTokens, type CallOptions, type Session, type ShortlistOptions } from './session.js';
import type { Shortlist } from './sampler/shortlist.js';
import { StopMatcher } from './stop.js';
import type { Tokenizer } from './tokenizer/index.js';

export interface GenerateOptions extends SamplingOptions {
  /** Most tokens to generate; fewer when the context is full before. Default 256. */
  maxTokens?: number;
  /** Text that ends the generation; it and what follows are not part of the result's text. */
  stop?: string | readonly string[];
  /** Stops within one token; the generation then rejects with ABORTED. */
  signal?: AbortSignal;
  /** The plan for this generation. Default: the model's. Not together with `session`, which has its own. */
  plan?: PlanInput;
  /**
   * Continues in this session, at its position, instead of one made and closed for this call. When the generation is done the
   * session's cache holds the prompt and every token of the result.
   */
  session?: Session;
}

/** One generated token and the text that became certain with it; the text may be empty, or hold back from earlier tokens. */
export interface GenerationChunk {
  text: string;
  token: number;
  /** When `logprobs` is set: see `Sample` of the sampler. */
  logprob?: number;
  alternatives?: TokenLogprob[];
}

export interface GenerationResult {
  /** All chunks' texts joined. */
  text: string;
  /** Every generated token; the last is an end-of-text token when `finishReason` is `eos`. */
  tokens: number[];
  /** `eos`: the model ended its text. `stop`: a stop string was found. `length`: `maxTokens` or the context's end was reached. */
  finishReason: 'eos' | 'stop' | 'length';
  usage: { promptTokens: number; completionTokens: number; totalTokens: number };
  timings: GenerationTimings;
  /** The seed that was used: given again with the same options, it gives the same text. */
  seed: number;
}

/** Milliseconds waited for the engine; time a consumer spent between chunks is not counted, even where the engine used it to decode ahead. */
export interface GenerationTimings {
  prefillMs: number;
  /** All tokens after the first, which comes out of the prefill. */
  decodeMs: number;
  prefillTokensPerSecond: number;
  /** Tokens after the first per second of `decodeMs`; 0 when there is none. */
  decodeTokensPerSecond: number;
  /** From the first pull, tokenization included. */
  timeToFirstTokenMs: number;
}

/** What a generation needs of a session. */
export type GenerationSession = Pick<Session, 'plan' | 'position' | 'contextLength' | 'close'> & {
  prefill(ids: ArrayLike<number>, options: CallOptions): Promise<Float32Array>;
  shortlist(ids: ArrayLike<number>, count: number, options: ShortlistOptions): Promise<Shortlist>;
};

/** What a generation needs of a model. */
export interface GenerationModel {
  readonly vocabSize: number;
  /** Most positions a session made for a generation may have. */
  readonly contextLength: number;
  /** Whether a token that was begun ahead and is not wanted is stopped at the end of a stage, rather than done to its end. */
  readonly stopsAtStage: boolean;
  /** Undefined when the model has none: then prompts are token ids and texts are empty. */
  readonly tokenizer: Pick<Tokenizer, 'encodeSliced' | 'detokenizer' | 'isSpecial' | 'bosTokenId' | 'eosTokenIds'> | undefined;
  /** Throws INVALID_TOKENIZER with the reason there is none. */
  requireTokenizer(): unknown;
  createSession(options: { contextLength: number; plan: PlanInput | undefined }): GenerationSession | Promise<GenerationSession>;
}

const OPTION_NAMES = [
  'maxTokens', 'stop', 'signal', 'plan', 'session', 'temperature', 'topK', 'topP', 'minP', 'repetitionPenalty', 'repetitionWindow',
  'frequencyPenalty', 'presencePenalty', 'logitBias', 'seed', 'logprobs',
];
const DEFAULT_MAX_TOKENS = 256;
/**
 * Milliseconds. A wrong guess of the next token is stopped at the end of a stage; where stages are this short, that takes no longer than the
 * threads take to wake, which guessing spares them, and a right one saves all the time that JavaScript takes.
 */
const SHORT_STAGE_MS = 0.2;

/** Sessions that a generation is continuing in: two at once would mix their tokens. */
const busy = new WeakSet<object>();

/**
 * A text being generated: iterate it for chunks as they come, await it for the whole, or both.
 *
 * Nothing is done before the first use. Iterated, each step is done when the loop asks for it, but for what the engine decodes ahead: the
 * likeliest token, meanwhile, at temperature 0 and where a wrong guess costs nothing. Leaving the loop early stops the generation and frees
 * its session; awaiting it then rejects with ABORTED. Each iterator starts at the first chunk.
 */
export class Generation implements AsyncIterable<GenerationChunk>, PromiseLike<GenerationResult> {
  readonly #model: GenerationModel;
  readonly #prompt: string | Int32Array;
  readonly #options: GenerateOptions;
  readonly #stops: readonly string[];
  readonly #sampler: Sampler;
  readonly #abort = new AbortController();
  readonly #steps: AsyncGenerator<GenerationChunk, GenerationResult>;
  readonly #chunks: GenerationChunk[] = [];
  #result: GenerationResult | undefined;
  #failure: unknown;
  #pending: Promise<boolean> | undefined;

  /** @internal Throws INVALID_ARGUMENT for an option that is unknown or out of range. */
  constructor(model: GenerationModel, prompt: string | ArrayLike<number>, options: GenerateOptions = {}) {
    expectOptionNames('generate', options, OPTION_NAMES);
    const { maxTokens, stop, signal, plan, session } = options;
    const stops = stop === undefined ? [] : typeof stop === 'string' ? [stop] : stop;
    expectOption('The prompt', prompt, typeof prompt === 'string' || (typeof prompt === 'object' && prompt !== null && 'length' in prompt), 'a string or an array of token ids');
    expectOption('maxTokens', maxTokens, maxTokens === undefined || isCount(maxTokens), 'an integer, 1 or more');
    expectOption('stop', stop, Array.isArray(stops) && stops.every((text) => typeof text === 'string' && text !== '' && !LONE_SURROGATE.test(text)), 'a string or an array of strings, none of them empty or with half a character');
    expectOption('signal', signal, isSignal(signal), 'an AbortSignal');
    if (plan !== undefined && session !== undefined) throw new CqilError('INVALID_ARGUMENT', 'Both plan and session were given; expected one of them, since a session has its own plan.');
    if (typeof prompt === 'string' || stops.length > 0) model.requireTokenizer();

    this.#model = model;
    this.#prompt = typeof prompt === 'string' ? prompt : prompt.length === 0 ? new Int32Array() : toTokens(prompt, model.vocabSize, session?.contextLength ?? model.contextLength);
    this.#options = { ...options };
    this.#stops = [...stops];
    this.#sampler = new Sampler(options, model.vocabSize);
    this.#steps = this.#run();
  }

  /** The seed in use, made up when none was given. */
  get seed(): number {
    return this.#sampler.seed;
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<GenerationChunk, undefined> {
    let read = 0;
    let over = false;
    const next = async (): Promise<IteratorResult<GenerationChunk, undefined>> => {
      const index = read++;
      try {
        while (!over && index >= this.#chunks.length) over = !(await this.#advance());
      } catch (error) {
        over = true;
        throw error;
      }
      const chunk = this.#chunks[index];
      return over && !chunk ? { done: true, value: undefined } : { done: false, value: chunk! };
    };
    const leave = async (): Promise<IteratorResult<GenerationChunk, undefined>> => {
      over = true;
      read = Infinity;
      await this.#cancel(new CqilError('ABORTED', 'The loop over this generation was left before its end.'));
      return { done: true, value: undefined };
    };
    return { next, return: leave, [Symbol.asyncIterator]() { return this; } };
  }

  // oxlint-disable-next-line unicorn/no-thenable -- being awaitable is what the class is for
  then<A = GenerationResult, B = never>(fulfilled?: ((result: GenerationResult) => A | PromiseLike<A>) | null, rejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<A | B> {
    return this.#finish().then(fulfilled, rejected);
  }

  catch<B = never>(rejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<GenerationResult | B> {
    return this.#finish().catch(rejected);
  }

  finally(settled?: (() => void) | null): Promise<GenerationResult> {
    return this.#finish().finally(settled);
  }

  async #finish(): Promise<GenerationResult> {
    while (await this.#advance());
    return this.#result!;
  }

  /** Makes one more chunk, unless that is happening already; gives false when there is none. */
  #advance(): Promise<boolean> {
    this.#pending ??= this.#step().finally(() => (this.#pending = undefined));
    return this.#pending;
  }

  async #step(): Promise<boolean> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#result) return false;
    try {
      const { value, done } = await this.#steps.next();
      if (this.#failure !== undefined) throw this.#failure;
      if (done) this.#result = value;
      else this.#chunks.push(value);
      return !done;
    } catch (error) {
      this.#failure ??= error;
      throw this.#failure;
    }
  }

  async #cancel(reason: CqilError): Promise<void> {
    if (this.#result || this.#failure !== undefined) return;
    this.#failure = reason;
    this.#abort.abort(reason);
    // Runs the clean-up of #run now when it waits between two chunks, else right after the step in flight.
    await this.#steps.return(undefined as never);
  }

  async *#run(): AsyncGenerator<GenerationChunk, GenerationResult> {
    const started = performance.now();
    const signal = this.#abort.signal;
    const userSignal = this.#options.signal;
    throwIfAborted(userSignal);
    const aborted = (): void => void this.#cancel(abortError(userSignal!));
    userSignal?.addEventListener('abort', aborted, { once: true });
    let session: GenerationSession | undefined;
    try {
      const prompt = await this.#promptTokens(signal);
      session = await this.#openSession(prompt.length);
      const tokenizer = this.#model.tokenizer;
      const continues = session.position > 0 || prompt.some((id) => !tokenizer?.isSpecial(id));
      const detokenizer = tokenizer?.detokenizer({ continues });
      const stops = new StopMatcher(this.#stops);
      const stages = countStages(session.plan);
      let stageMs = Infinity;
      const most = Math.min(this.#options.maxTokens ?? DEFAULT_MAX_TOKENS, session.contextLength - session.position - prompt.length);

      this.#sampler.prime(prompt);
      const prefillStarted = performance.now();
      const logits = await this.#append(session, prompt, signal, most > 1 && this.#guesses(stageMs));
      const prefillMs = performance.now() - prefillStarted;
      let sample = this.#sampler.sample(logits);
      const timeToFirstTokenMs = performance.now() - started;
      let decodeMs = 0;
      let text = '';
      const tokens: number[] = [];
      for (;;) {
        const { token } = sample;
        tokens.push(token);
        const eos = tokenizer?.eosTokenIds.includes(token) ?? false;
        let finishReason: GenerationResult['finishReason'] | undefined = eos ? 'eos' : tokens.length >= most ? 'length' : undefined;
        let piece = (eos ? '' : detokenizer?.push(token)) ?? '';
        if (finishReason) piece += detokenizer?.flush() ?? '';
        const shown = stops.push(piece);
        if (shown.stopped) finishReason = 'stop';
        else if (finishReason) shown.text += stops.flush();
        text += shown.text;
        yield { text: shown.text, ...sample };

        if (finishReason) {
          if (this.#options.session) await this.#append(session, [token], signal, false);
          return {
            text,
            tokens,
            finishReason,
            usage: { promptTokens: prompt.length, completionTokens: tokens.length, totalTokens: prompt.length + tokens.length },
            timings: {
              prefillMs,
              decodeMs,
              prefillTokensPerSecond: perSecond(prompt.length, prefillMs),
              decodeTokensPerSecond: perSecond(tokens.length - 1, decodeMs),
              timeToFirstTokenMs,
            },
            seed: this.seed,
          };
        }
        const stepStarted = performance.now();
        sample = this.#sampler.sample(await this.#append(session, [token], signal, tokens.length + 1 < most && this.#guesses(stageMs)));
        const stepMs = performance.now() - stepStarted;
        decodeMs += stepMs;
        stageMs = stepMs / stages;
      }
    } finally {
      userSignal?.removeEventListener('abort', aborted);
      if (this.#options.session) busy.delete(this.#options.session);
      else session?.close();
    }
  }

  /** Whether the likeliest token is to be begun before the sampler has chosen the next, where a stage of the last one took so long. */
  #guesses(stageMs: number): boolean {
    return this.#sampler.takesFirst || (this.#model.stopsAtStage && stageMs <= SHORT_STAGE_MS);
  }

  /** Appends tokens and gives what the sampler needs to choose the next. */
  #append(session: GenerationSession, tokens: number[], signal: AbortSignal, ahead: boolean): Promise<Float32Array | Shortlist> {
    const { shortlist } = this.#sampler;
    return shortlist === undefined ? session.prefill(tokens, { signal }) : session.shortlist(tokens, shortlist, { signal, ahead });
  }

  async #promptTokens(signal: AbortSignal): Promise<number[]> {
    const position = this.#options.session?.position ?? 0;
    // A text that continues a session does not begin again.
    const ids = typeof this.#prompt === 'string' ? await this.#model.tokenizer!.encodeSliced(this.#prompt, { addSpecialTokens: position === 0, signal }) : Array.from(this.#prompt);
    const bos = this.#model.tokenizer?.bosTokenId;
    if (ids.length === 0 && position === 0 && bos !== undefined) ids.push(bos);
    if (ids.length === 0) throw new CqilError('INVALID_ARGUMENT', 'The prompt has no tokens and the model has no token that begins a text; expected at least one token.');
    return ids;
  }

  #openSession(promptTokens: number): GenerationSession | Promise<GenerationSession> {
    const { session, plan, maxTokens } = this.#options;
    const position = session?.position ?? 0;
    const contextLength = session?.contextLength ?? this.#model.contextLength;
    if (position + promptTokens >= contextLength) {
      throw new CqilError('CONTEXT_OVERFLOW', `A prompt of ${promptTokens} tokens at position ${position} leaves no room for another; expected it to end before the context's ${contextLength}.`);
    }
    if (!session) return this.#model.createSession({ contextLength: Math.min(contextLength, promptTokens + (maxTokens ?? DEFAULT_MAX_TOKENS)), plan });
    if (busy.has(session)) throw new CqilError('INVALID_ARGUMENT', 'The session is in use by another generation; expected that one to be done first.');
    busy.add(session);
    return session;
  }
}

const LONE_SURROGATE = /\p{Surrogate}/u;

function perSecond(count: number, ms: number): number {
  return ms > 0 ? (count * 1000) / ms : 0;
}
