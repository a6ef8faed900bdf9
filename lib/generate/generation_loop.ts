import { orAborted } from '../util/abort.js';
import { CqilError } from '../errors.js';
import { countStages, type PlanInput } from '../plan/plan.js';
import type { Sampler, TokenLogprob } from './sampler.js';
import type { SamplingOptions } from './sampling_options.js';
import type { Shortlist } from '../engine/shortlist.js';
import type { HeldSession, Session } from '../session/session.js';
import { StopMatcher, type StopUnits } from './stop.js';
import { TextSoFar, type FinishReason, type TextParts } from './text_so_far.js';
import type { Tokenizer } from '../tokenizer/index.js';

export interface GenerateOptions extends SamplingOptions {
  /** Most tokens to generate; fewer when the context is full before. Default 256. */
  maxTokens?: number;
  /**
   * Text that ends the generation. It and what follows are not part of the result's text. It may name control tokens,
   * such as `<|im_end|>`; these tokens then end the generation too, although they have no text.
   */
  stop?: string | readonly string[];
  /**
   * Whether control tokens written in a text prompt, such as `<|im_end|>`, are read as tokens. Default false: they are
   * plain text, because a prompt may contain what somebody else wrote. Messages are encoded by
   * `model.tokenizer.encodeChat`, which keeps the template's control tokens.
   */
  parseSpecialTokens?: boolean;
  /** Stops within one token; the generation then rejects with ABORTED. */
  signal?: AbortSignal;
  /** The plan for this generation. Default: the model's. Not together with `session`, which has its own. */
  plan?: PlanInput;
  /**
   * The session to continue in, at its position. Without it, a session is made and closed for this call. A text prompt
   * that continues a session is taken as it is written, without the tokens that begin a text. When the generation is
   * done, the session's cache holds the prompt and every token of the result; when it failed or was left, as many of
   * them as had been computed. Until then no other call can change the session, see `Session`.
   */
  session?: Session;
}

/**
 * One generated token and the text that became certain with it; the text may be empty, or hold back from earlier
 * tokens.
 */
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
  finishReason: FinishReason;
  usage: { promptTokens: number; completionTokens: number; totalTokens: number };
  timings: GenerationTimings;
  /** The seed that was used: given again with the same options, it gives the same text. */
  seed: number;
}

/**
 * Milliseconds waited for the engine; time a consumer spent between chunks is not counted, even where the engine used
 * it to decode ahead.
 */
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
export type GenerationSession = Pick<HeldSession, 'plan' | 'position' | 'contextLength' | 'prefill' | 'shortlist'>;

/** What a generation needs of a model. */
export interface GenerationModel {
  readonly vocabSize: number;
  /** Most positions a session made for a generation may have. */
  readonly contextLength: number;
  /**
   * Whether a token that was begun ahead and is not wanted is stopped at the end of a stage, rather than done to its
   * end.
   */
  readonly stopsAtStage: boolean;
  /** Undefined when the model has none: then prompts are token ids and texts are empty. */
  readonly tokenizer:
    | Pick<Tokenizer, 'encodeSliced' | 'detokenizer' | 'isSpecial' | 'idToToken' | 'bosTokenId'>
    | undefined;
  /** Every id that ends a generation. */
  readonly eosTokenIds: readonly number[];
  /** Throws INVALID_TOKENIZER with the reason there is none. */
  requireTokenizer(): unknown;
  createSession(options: { contextLength: number; plan: PlanInput | undefined }): OwnSession | Promise<OwnSession>;
}

type OwnSession = GenerationSession & Pick<Session, 'close'>;

/** Options and prompt that have been checked. */
export interface GenerationRequest extends Pick<
  GenerateOptions,
  'maxTokens' | 'parseSpecialTokens' | 'plan' | 'session'
> {
  prompt: string | Int32Array;
  stops: readonly string[];
  sampler: Sampler;
  signal: AbortSignal;
}

const DEFAULT_MAX_TOKENS = 256;
/**
 * Milliseconds. A wrong guess of the next token is stopped at the end of a stage; where stages are this short, that
 * takes no longer than the threads take to wake, which guessing spares them, and a right one saves all the time that
 * JavaScript takes.
 */
const SHORT_STAGE_MS = 0.2;

/**
 * The chunks of a generation, each made when it is asked for. Holds the session while it runs, and frees what it made
 * however it ends.
 */
export async function* generationSteps(
  model: GenerationModel,
  request: GenerationRequest,
): AsyncGenerator<GenerationChunk, GenerationResult> {
  const started = performance.now();
  const { sampler, signal, plan, maxTokens = DEFAULT_MAX_TOKENS } = request;
  const held = request.session?.hold();
  let own: OwnSession | undefined;
  try {
    if (held) await orAborted(held.ready, signal);
    const cached = held?.ids ?? [];
    const contextLength = held?.contextLength ?? model.contextLength;
    const prompt = await promptTokens(model, request, cached, contextLength);
    const most = Math.min(maxTokens, contextLength - cached.length - prompt.length);
    const soFar = await textAfter([cached, prompt], model, request, { most, maxTokens });
    for (const ids of [cached, prompt]) sampler.prime(ids);

    const session = held ?? (own = await model.createSession({ contextLength: prompt.length + most, plan }));
    const stages = countStages(session.plan);
    let stageMs = Infinity;
    /**
     * Whether the likeliest token is to be begun before the sampler has chosen the next, where a stage of the last one
     * took so long.
     */
    const guesses = (): boolean => sampler.takesFirst || (model.stopsAtStage && stageMs <= SHORT_STAGE_MS);
    /** Appends tokens and gives what the sampler needs to choose the next. */
    const append = (ids: number[], ahead: boolean): Promise<Float32Array | Shortlist> =>
      sampler.shortlist === undefined
        ? session.prefill(ids, { signal })
        : session.shortlist(ids, sampler.shortlist, { signal, ahead });

    const prefillStarted = performance.now();
    const logits = await append(prompt, most > 1 && guesses());
    const prefillMs = performance.now() - prefillStarted;
    let sample = sampler.sample(logits);
    const timeToFirstTokenMs = performance.now() - started;
    let decodeMs = 0;
    for (;;) {
      const { token } = sample;
      const { text, finishReason } = soFar.push(token);
      yield { text, ...sample };

      if (finishReason) {
        if (held) await append([token], false);
        const result = resultOf(soFar, prompt.length, { prefillMs, decodeMs, timeToFirstTokenMs });
        return { ...result, finishReason, seed: sampler.seed };
      }
      const before = performance.now();
      sample = sampler.sample(await append([token], soFar.tokens.length + 1 < most && guesses()));
      const stepMs = performance.now() - before;
      decodeMs += stepMs;
      stageMs = stepMs / stages;
    }
  } finally {
    held?.release();
    own?.close();
  }
}

/** The text, empty as yet, that goes on after the tokens of these pieces. */
async function textAfter(
  before: ReadonlyArray<readonly number[]>,
  model: GenerationModel,
  request: GenerationRequest,
  limits: Pick<TextParts, 'most' | 'maxTokens'>,
): Promise<TextSoFar> {
  const { tokenizer, eosTokenIds } = model;
  const isText = (id: number): boolean => !tokenizer?.isSpecial(id);
  const detokenizer = tokenizer?.detokenizer({ continues: before.some((ids) => ids.some(isText)) });
  const stops = new StopMatcher(await stopUnits(model, request));
  return new TextSoFar({ detokenizer, stops, isText, eosTokenIds, ...limits });
}

function resultOf(
  { text, tokens }: TextSoFar,
  promptTokens: number,
  times: Pick<GenerationTimings, 'prefillMs' | 'decodeMs' | 'timeToFirstTokenMs'>,
): Pick<GenerationResult, 'text' | 'tokens' | 'usage' | 'timings'> {
  const { prefillMs, decodeMs } = times;
  return {
    text,
    tokens,
    usage: { promptTokens, completionTokens: tokens.length, totalTokens: promptTokens + tokens.length },
    timings: {
      ...times,
      prefillTokensPerSecond: perSecond(promptTokens, prefillMs),
      decodeTokensPerSecond: perSecond(tokens.length - 1, decodeMs),
    },
  };
}

/** The prompt's ids, at least one, with room for another after them. */
async function promptTokens(
  model: GenerationModel,
  request: GenerationRequest,
  cached: readonly number[],
  contextLength: number,
): Promise<number[]> {
  const { tokenizer } = model;
  const { prompt, parseSpecialTokens = false, signal } = request;
  const position = cached.length;
  const limit = contextLength - position - 1;
  if (limit < 1)
    throw new CqilError(
      'CONTEXT_OVERFLOW',
      `The session holds ${position} tokens of ${contextLength}, which leaves no room for a prompt and a token ` +
        'after it; expected a session that was truncated or rewound, or one with a larger contextLength.',
    );
  let ids: number[];
  if (typeof prompt === 'string') {
    // A text after nothing but control tokens begins; after others it goes on where the session ends.
    const after = cached.every((id) => tokenizer!.isSpecial(id)) ? undefined : cached.at(-1);
    ids = await tokenizer!.encodeSliced(prompt, {
      addSpecialTokens: position === 0,
      parseSpecialTokens,
      after,
      signal,
      limit,
    });
    expectInModel(ids, model);
  } else ids = Array.from(prompt);
  const bos = tokenizer?.bosTokenId;
  if (ids.length === 0 && position === 0 && bos !== undefined) ids.push(bos);
  if (ids.length === 0) {
    const why =
      position > 0
        ? 'a session that has tokens already needs one to go on with (session.rewind gives the last of all ids back)'
        : 'the model has no token that begins a text';
    throw new CqilError('INVALID_ARGUMENT', `The prompt has no tokens, and ${why}; expected at least one token.`);
  }
  if (ids.length > limit) {
    // A text is not encoded to its end when that cannot fit.
    const length = typeof prompt === 'string' ? `more than ${limit}` : ids.length;
    throw new CqilError(
      'CONTEXT_OVERFLOW',
      `A prompt of ${length} tokens at position ${position} leaves no room for another; expected it to end before ` +
        `the context's ${contextLength}.`,
    );
  }
  return ids;
}

/** Throws INVALID_TOKENIZER for ids that a tokenizer of another model gives. */
function expectInModel(ids: readonly number[], { tokenizer, vocabSize }: GenerationModel): void {
  const beyond = ids.find((id) => id >= vocabSize);
  if (beyond !== undefined)
    throw new CqilError(
      'INVALID_TOKENIZER',
      `The tokenizer gives the id ${beyond} (${JSON.stringify(tokenizer!.idToToken(beyond))}), and the model has ` +
        `${vocabSize} rows: they do not belong together; expected the model's own tokenizer.`,
    );
}

/**
 * The stop strings, and again those that name control tokens, with these as their ids: a model may give either the
 * token or its name.
 */
async function stopUnits(
  { tokenizer }: GenerationModel,
  { stops, signal }: GenerationRequest,
): Promise<Array<string | StopUnits>> {
  const found: Array<string | StopUnits> = [...stops];
  for (const stop of stops) {
    let units: Array<string | number> = [];
    let end = 0;
    for (const id of await tokenizer!.encodeSliced(stop, {
      addSpecialTokens: false,
      parseSpecialTokens: true,
      signal,
    })) {
      const name = tokenizer!.isSpecial(id) ? tokenizer!.idToToken(id) : undefined;
      const start = name === undefined ? -1 : stop.indexOf(name, end);
      if (start < 0) continue;
      units = [...units, ...stop.slice(end, start).split(''), id];
      end = start + name!.length;
    }
    if (units.length > 0) found.push([...units, ...stop.slice(end).split('')]);
  }
  return found;
}

function perSecond(count: number, ms: number): number {
  return ms > 0 ? (count * 1000) / ms : 0;
}
