import type { Activations } from '../engine/activations.js';
import { AdaptedWeights } from '../session/adapted_weights.js';
import type { ModelConfig } from '../checkpoint/types.js';
import { CqilError } from '../errors.js';
import type { ExecutionChoices } from '../engine/execution_choices.js';
import { Generation, type GenerateOptions } from '../generate/generate.js';
import type { GenerationModel } from '../generate/generation_loop.js';
import type { KvCache } from '../engine/kv_cache.js';
import { expectContextLength, expectExecution, expectKvCache, type SessionOptions } from '../engine/load_options.js';
import { loadNative } from '../engine/addon.js';
import {
  nativeShape,
  toNativePlan,
  type BackendLimits,
  type Execution,
  type ModelHandle,
  type Program,
  type SessionHandle,
  type SettledExecution,
} from '../engine/native.js';
import type { Placement } from '../engine/placement.js';
import { expectOption, readArgument, readKnownOptions } from '../util/options.js';
import { resolvePlan, type Plan, type PlanInput } from '../plan/plan.js';
import type { Followers } from '../ranks/leader.js';
import type { PublishedPlan } from './published_plan.js';
import { Batcher } from '../session/batcher.js';
import { Session } from '../session/session.js';
import type { SessionHost } from '../session/session_cache.js';
import type { Tokenizer } from '../tokenizer/index.js';

const DEFAULT_SESSION_LENGTH = 4096;

/** The phases a plan makes of a model's layers; needs no weights. */
export function compilePlan(config: ModelConfig, plan: Plan): Program {
  return loadNative().compileProgram(nativeShape(config), toNativePlan(plan));
}

export interface ModelParts {
  handle: ModelHandle;
  /** Whether the weights are random. */
  random: boolean;
  config: ModelConfig;
  plan: Plan;
  tokenizer: Tokenizer | CqilError;
  eosTokenIds: readonly number[];
  warnings: readonly string[];
  placement: Placement;
  limits: BackendLimits;
  contextLength: number | undefined;
  choices: ExecutionChoices;
  publishedPlan: PublishedPlan | undefined;
  /** Other processes that compute the model with this one. */
  followers: Followers | undefined;
}

/** A loaded model. After `dispose()` every method that computes throws or rejects with DISPOSED. */
export class Model {
  /** The model's shape. */
  readonly config: ModelConfig;
  /** What sessions and generations compute unless they say otherwise. */
  readonly plan: Plan;
  /** The plan in the model's config.json (`cqil_layers`), when it has one. It is used only when it is asked for. */
  readonly publishedPlan: PublishedPlan | undefined;
  readonly backend: 'cpu' | 'cuda';
  /** Threads of each rank: at most as many compute. */
  readonly threads: number;
  /** How much each of the processes that compute the model has of it, in proportion; [1] for one alone. */
  readonly ranks: readonly number[];
  /** How sessions keep keys and values unless they say otherwise. */
  readonly kvCache: KvCache;
  /** What vectors are when weights are multiplied with them. */
  readonly activations: Activations;
  /** Every id that ends a generation. It is read from the model's files, also when there is no usable tokenizer. */
  readonly eosTokenIds: readonly number[];
  /** One sentence for everything in the model's files that is not followed. */
  readonly warnings: readonly string[];
  readonly #handle: ModelHandle;
  readonly #tokenizer: Tokenizer | CqilError;
  readonly #execution: Execution;
  readonly #contextLength: number | undefined;
  readonly #choices: ExecutionChoices;
  readonly #native = loadNative();
  readonly #batcher: Batcher;
  readonly #host: SessionHost;
  readonly #generationModel: GenerationModel;
  readonly #adapted: AdaptedWeights;
  /** Open sessions. Those that were dropped without `close()` are freed once they are collected. */
  readonly #sessions = new Map<SessionHandle, { session: WeakRef<Session>; plan: Plan }>();
  readonly #dropped = new FinalizationRegistry<SessionHandle>((handle) => this.#release(handle));
  readonly #made = new WeakSet<Session>();
  readonly #followers: Followers | undefined;
  #disposal: Promise<void> | undefined;

  /** @internal */
  constructor(parts: ModelParts) {
    this.config = parts.config;
    this.plan = parts.plan;
    this.publishedPlan = parts.publishedPlan;
    this.backend = parts.placement.backend;
    this.threads = parts.placement.threads;
    this.ranks = parts.placement.ranks;
    this.#followers = parts.followers;
    this.kvCache = parts.placement.kvCache;
    this.activations = parts.placement.activations;
    this.eosTokenIds = parts.eosTokenIds;
    this.warnings = parts.warnings;
    this.#handle = parts.handle;
    this.#tokenizer = parts.tokenizer;
    this.#execution = parts.placement.execution;
    this.#contextLength = parts.contextLength;
    this.#choices = parts.choices;
    this.#batcher = new Batcher(this.#native, parts.limits.rowsTogether);
    this.#host = {
      native: this.#native,
      batcher: this.#batcher,
      vocabSize: this.config.vocabSize,
      release: (handle) => this.#release(handle),
    };
    this.#generationModel = {
      vocabSize: this.config.vocabSize,
      contextLength: this.#contextLength ?? this.config.contextLength,
      stopsAtStage: parts.limits.stopsAtStage,
      tokenizer: this.#tokenizer instanceof CqilError ? undefined : this.#tokenizer,
      eosTokenIds: this.eosTokenIds,
      requireTokenizer: () => this.tokenizer,
      createSession: async (options) => {
        await this.prepare(options.plan);
        return this.createSession(options);
      },
    };
    this.#adapted = new AdaptedWeights({
      native: this.#native,
      queue: this.#batcher,
      config: this.config,
      base: this.#handle,
      random: parts.random,
    });
  }

  /** Throws INVALID_TOKENIZER, saying why, when the model has none; token ids work all the same. */
  get tokenizer(): Tokenizer {
    if (this.#tokenizer instanceof CqilError) throw this.#tokenizer;
    return this.#tokenizer;
  }

  /** The phases of one forward pass under a plan, the model's own by default. */
  program(plan?: PlanInput): Program {
    return compilePlan(this.config, this.#resolve(plan));
  }

  /**
   * Makes a plan ready for sessions: reads its adapter and merges it, beside the model's own weights, which other plans
   * go on using. A plan without an adapter is ready as it is, and so is the one given to `loadModel`. Generations do
   * this by themselves.
   *
   * Rejects with FILE_NOT_FOUND, INVALID_CHECKPOINT or UNSUPPORTED_MODEL for an adapter that cannot be read or belongs
   * to another model; INVALID_PLAN, OUT_OF_MEMORY, DISPOSED.
   */
  async prepare(plan?: PlanInput): Promise<Plan> {
    this.#expectOpen();
    const resolved = this.#resolve(plan);
    if (resolved.adapter !== undefined) await this.#adapted.load(resolved.adapter);
    return resolved;
  }

  /** Frees the weights that `prepare` made of a plan's adapter, once the last session that uses them is closed. */
  release(plan: PlanInput): void {
    this.#expectOpen();
    const { adapter } = this.#resolve(plan);
    if (adapter !== undefined) void this.#adapted.release(adapter);
  }

  /**
   * A new text with an empty KV cache. A plan with an adapter must be ready, see `prepare`. Throws INVALID_ARGUMENT,
   * INVALID_PLAN, OUT_OF_MEMORY, DISPOSED.
   */
  createSession(options: SessionOptions = {}): Session {
    this.#expectOpen();
    options = readKnownOptions('createSession', options, ['contextLength', 'plan', 'execution', 'kvCache']);
    const { execution = this.#execution, kvCache = this.kvCache } = options;
    const most = this.config.contextLength;
    const contextLength = options.contextLength ?? this.#contextLength ?? Math.min(most, DEFAULT_SESSION_LENGTH);
    expectContextLength(contextLength, most);
    expectExecution(execution);
    expectKvCache(kvCache);
    const plan = this.#resolve(options.plan);
    const adapted = plan.adapter === undefined ? undefined : this.#adapted.weights(plan.adapter);
    const nativePlan = toNativePlan(plan);
    const handle = this.#native.createSession(adapted?.handle ?? this.#handle, {
      plan: nativePlan,
      execution,
      settled: this.#choices.get(plan),
      contextLength,
      kvCache,
    });
    const programKey = JSON.stringify([adapted?.serial, nativePlan, execution]);
    const session = new Session(this.#host, handle, {
      contextLength,
      plan,
      program: () => this.program(plan),
      programKey,
    });
    this.#sessions.set(handle, { session: new WeakRef(session), plan });
    this.#dropped.register(session, handle);
    this.#made.add(session);
    return session;
  }

  /**
   * The execution and number of threads that `auto` was using for a plan when a session of it was last closed, in this
   * process or an earlier one. Undefined before that, and for a plan that can be computed in one way only.
   */
  settledExecution(plan?: PlanInput): SettledExecution | undefined {
    return this.#choices.get(this.#resolve(plan));
  }

  /**
   * Generates text after a prompt: a string, or token ids. Throws at once for options that are wrong; see `Generation`
   * for the rest.
   */
  generate(prompt: string | ArrayLike<number>, options: GenerateOptions = {}): Generation {
    this.#expectOpen();
    const session = readArgument('The options of generate', () => options?.session);
    expectOption('session', session, session === undefined || this.#made.has(session), 'a session of this model');
    return new Generation(this.#generationModel, prompt, options);
  }

  /**
   * Stops the work in flight, closes the sessions and frees the weights. When it resolves, nothing reads the model's
   * files any more. Calling it again gives the same promise.
   */
  dispose(): Promise<void> {
    this.#disposal ??= this.#dispose();
    return this.#disposal;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  async #dispose(): Promise<void> {
    for (const [handle, { session: reference }] of this.#sessions) {
      const session = reference.deref();
      if (session) session.close();
      else this.#release(handle);
    }
    await this.#batcher.idle();
    await Promise.all([this.#adapted.dispose(), this.#native.disposeModel(this.#handle)]);
    await this.#followers?.end();
    await this.#choices.flush();
  }

  #release(handle: SessionHandle): void {
    const plan = this.#sessions.get(handle)?.plan;
    if (!plan) return;
    this.#sessions.delete(handle);
    const settled = this.#native.closeSession(handle);
    if (settled) this.#choices.add(plan, settled);
  }

  #resolve(plan: PlanInput | undefined): Plan {
    return plan === undefined ? this.plan : resolvePlan(plan, this.config.nLayers);
  }

  #expectOpen(): void {
    if (this.#disposal) throw new CqilError('DISPOSED', 'The model is disposed; expected one that is not.');
  }
}
