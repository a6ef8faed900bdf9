import { abortError, onAbort, throwIfAborted } from '../util/abort.js';
import { CqilError } from '../errors.js';
import {
  generationSteps,
  type GenerateOptions,
  type GenerationChunk,
  type GenerationModel,
  type GenerationResult,
} from './generation_loop.js';
import { expectOption, isCount, isSignal, readArgument, readKnownOptions } from '../util/options.js';
import { Sampler } from './sampler.js';
import { toTokens } from '../session/arguments.js';

export type { GenerateOptions, GenerationChunk, GenerationResult, GenerationTimings } from './generation_loop.js';

const OPTION_NAMES = [
  'maxTokens',
  'stop',
  'parseSpecialTokens',
  'signal',
  'plan',
  'session',
  'temperature',
  'topK',
  'topP',
  'minP',
  'repetitionPenalty',
  'repetitionWindow',
  'frequencyPenalty',
  'presencePenalty',
  'logitBias',
  'seed',
  'logprobs',
];

/** When a generation that was dropped half-way has been collected, removes its callback from the signal. */
const dropped = new FinalizationRegistry<() => void>((forget) => forget());

/**
 * A text being generated: iterate it for chunks as they come, await it for the whole, or both.
 *
 * Nothing is done before the first use. In a loop, each chunk is made when the loop asks for it. Only the likeliest next
 * token is decoded ahead, at temperature 0 and when a wrong guess costs nothing. Leaving the loop early stops the
 * generation and frees its session; awaiting it then rejects with ABORTED. Each iterator starts at the first chunk.
 *
 * Rejects with INVALID_ARGUMENT when its session is in use by another generation; CONTEXT_OVERFLOW when the prompt
 * leaves no room for a token; ABORTED; DISPOSED when its session was closed or its model disposed. The name of an
 * ABORTED error is `AbortError`, as in Node's own functions.
 */
export class Generation implements AsyncIterable<GenerationChunk>, PromiseLike<GenerationResult> {
  readonly #model: GenerationModel;
  readonly #prompt: string | Int32Array;
  readonly #options: GenerateOptions;
  readonly #stops: readonly string[];
  readonly #sampler: Sampler;
  readonly #abort = new AbortController();
  readonly #source: AsyncGenerator<GenerationChunk, GenerationResult>;
  readonly #chunks: GenerationChunk[] = [];
  #result: GenerationResult | undefined;
  #failure: unknown;
  #pending: Promise<boolean> | undefined;

  /** @internal Throws INVALID_ARGUMENT for an option that is unknown or out of range. */
  constructor(model: GenerationModel, prompt: string | ArrayLike<number>, options: GenerateOptions = {}) {
    options = readKnownOptions('generate', options, OPTION_NAMES);
    const { maxTokens, parseSpecialTokens, signal, plan, session } = options;
    const stops = readArgument('stop', () => textsOf(options.stop));
    readArgument('The prompt', () => expectPrompt(prompt));
    expectOption('maxTokens', maxTokens, maxTokens === undefined || isCount(maxTokens), 'an integer, 1 or more');
    expectOption(
      'parseSpecialTokens',
      parseSpecialTokens,
      parseSpecialTokens === undefined || typeof parseSpecialTokens === 'boolean',
      'true or false',
    );
    expectOption('signal', signal, isSignal(signal), 'an AbortSignal');
    if (plan !== undefined && session !== undefined)
      throw new CqilError(
        'INVALID_ARGUMENT',
        'Both plan and session were given; expected one of them, since a session has its own plan.',
      );
    if (typeof prompt === 'string' || stops.length > 0) model.requireTokenizer();

    this.#model = model;
    this.#prompt =
      typeof prompt === 'string'
        ? prompt
        : readArgument('The prompt', () =>
            prompt.length === 0
              ? new Int32Array()
              : toTokens(prompt, model.vocabSize, session?.contextLength ?? model.contextLength),
          );
    this.#options = options;
    this.#stops = stops;
    this.#sampler = readArgument('The options of generate', () => new Sampler(options, model.vocabSize));
    this.#source = this.#run();
  }

  /** The seed in use, made up when none was given. */
  get seed(): number {
    return this.#sampler.seed;
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<GenerationChunk> {
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
    return {
      next,
      return: leave,
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  // oxlint-disable-next-line unicorn/no-thenable -- being awaitable is what the class is for
  then<A = GenerationResult, B = never>(
    fulfilled?: ((result: GenerationResult) => A | PromiseLike<A>) | null,
    rejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
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
    this.#pending ??= this.#next().finally(() => (this.#pending = undefined));
    return this.#pending;
  }

  async #next(): Promise<boolean> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#result) return false;
    try {
      const { value, done } = await this.#source.next();
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
    // Runs the clean-up of #run now when it waits between two chunks, else right after the forward in flight.
    await this.#source.return(undefined as never);
  }

  async *#run(): AsyncGenerator<GenerationChunk, GenerationResult> {
    const { signal } = this.#options;
    throwIfAborted(signal);
    const forget = Generation.#cancelOnAbort(this, signal);
    try {
      const request = {
        prompt: this.#prompt,
        stops: this.#stops,
        sampler: this.#sampler,
        ...this.#options,
        signal: this.#abort.signal,
      };
      return yield* generationSteps(this.#model, request);
    } finally {
      forget();
    }
  }

  /**
   * Cancels a generation when the signal fires. Static, so that the signal does not keep a dropped generation alive.
   */
  static #cancelOnAbort(generation: Generation, signal: AbortSignal | undefined): () => void {
    if (!signal) return () => undefined;
    const reference = new WeakRef(generation);
    const forget = onAbort(signal, () => {
      const alive = reference.deref();
      if (alive) void alive.#cancel(abortError(signal));
    });
    dropped.register(generation, forget, forget);
    return () => {
      dropped.unregister(forget);
      forget();
    };
  }
}

const LONE_SURROGATE = /\p{Surrogate}/u;

/** The strings of `stop`, copied. */
function textsOf(stop: string | readonly string[] | undefined): readonly string[] {
  const texts = stop === undefined ? [] : typeof stop === 'string' ? [stop] : stop;
  const isText = (text: unknown): boolean => typeof text === 'string' && text !== '' && !LONE_SURROGATE.test(text);
  const expected = 'a string or an array of strings, none of them empty or with half a character';
  expectOption('stop', stop, Array.isArray(texts), expected);
  // A loop sees the holes of an array, which `every` and `map` pass over.
  const copy: string[] = [];
  for (const text of texts) {
    expectOption('stop', stop, isText(text), expected);
    copy.push(text);
  }
  return copy;
}

function expectPrompt(prompt: unknown): void {
  if (isMessages(prompt)) {
    throw new CqilError(
      'INVALID_ARGUMENT',
      'The prompt is an array of messages; expected a string or token ids: await ' +
        'model.tokenizer.encodeChatSliced(messages) gives the ids, applyChatTemplate(messages) the text.',
    );
  }
  const isPrompt = typeof prompt === 'string' || (typeof prompt === 'object' && prompt !== null && 'length' in prompt);
  expectOption('The prompt', prompt, isPrompt, 'a string or an array of token ids');
}

/** Whether a prompt is an array of chat messages, which other libraries accept as a prompt: [{ role, content }, …]. */
function isMessages(prompt: unknown): boolean {
  const first: unknown = Array.isArray(prompt) ? prompt[0] : prompt;
  return typeof first === 'object' && first !== null && 'role' in first;
}
