import path from 'node:path';
import { throwIfAborted } from './abort.js';
import { chooseActivations, type Activations } from './activations.js';
import { AdaptedWeights, randomWithAdapter } from './adapted_weights.js';
import { openLora } from './checkpoint/lora.js';
import { timingIdentity } from './cache_identity.js';
import { openCheckpoint } from './checkpoint/open.js';
import { syntheticCheckpoint } from './checkpoint/synthetic.js';
import type { Checkpoint, DType, ModelConfig, TensorInfo, TokenizerSource } from './checkpoint/types.js';
import { CqilError } from './errors.js';
import { ExecutionChoices } from './execution_choices.js';
import { Generation, type GenerateOptions, type GenerationModel } from './generate.js';
import { chooseKvCache, type KvCache } from './kv_cache.js';
import { expectContextLength, expectExecution, expectKvCache, MAX_THREADS, readOptions, type LoadOptions, type Placement, type SessionOptions } from './load_options.js';
import { loadNative, unpacked, type CudaInfo, type Execution, type MachineInfo, type ModelHandle, type ModelSpec, type NativeShape, type Program, type SessionHandle, type SettledExecution } from './native.js';
import { expectOption, expectOptionNames } from './options.js';
import { resolvePlan, toNativePlan, type Plan, type PlanInput } from './plan.js';
import { Session, type SessionHost } from './session.js';
import { loadTokenizer, type Tokenizer } from './tokenizer/index.js';
import { WorkQueue } from './work_queue.js';

const DEFAULT_SESSION_LENGTH = 4096;
/** Below this, joining threads after every phase costs more than they save. */
const ONE_THREAD_BYTES = 4 * 2 ** 20;

/**
 * Loads a Hugging Face folder or a `.gguf` file; without a path, the small model that ships.
 *
 * Rejects with a CqilError: FILE_NOT_FOUND, INVALID_CHECKPOINT or UNSUPPORTED_MODEL for the files; INVALID_ARGUMENT or INVALID_PLAN for the
 * options; BACKEND_UNAVAILABLE, OUT_OF_MEMORY or NATIVE_ADDON for this machine; ABORTED.
 */
export async function loadModel(file?: string, options: LoadOptions = {}): Promise<Model> {
  expectOption('The path of the model', file, file === undefined || (typeof file === 'string' && file !== ''), 'a folder, a .gguf file, or nothing for the model that ships');
  const placement = readOptions(options);
  const checkpoint = await openCheckpoint(file ?? shippedModelPath());
  return load(checkpoint, placement, options);
}

/** Random weights of a known shape, for measuring speed; the tokens mean nothing and there is no tokenizer. Takes `loadModel`'s options too. */
export async function loadSyntheticModel(shape: string, options: LoadOptions & { dtype?: DType; seed?: number } = {}): Promise<Model> {
  const { dtype = 'BF16', seed = 0, ...rest } = options;
  expectOption('seed', seed, Number.isSafeInteger(seed) && seed >= 0, 'an integer, 0 or more');
  const placement = readOptions(rest);
  return load(syntheticCheckpoint(shape, dtype), placement, rest, seed);
}

/** The phases a plan makes of a model's layers; needs no weights. */
export function compilePlan(config: ModelConfig, plan: Plan): Program {
  return loadNative().compileProgram(nativeShape(config), toNativePlan(plan));
}

/** What this machine has. */
export function describeMachine(): MachineInfo {
  return loadNative().describeMachine();
}

/** Whether CUDA can be used, with what, and why not. */
export async function describeCuda(): Promise<CudaInfo> {
  return loadNative().describeCuda();
}

/** Read bandwidth in GB/s of `threads` threads, each streaming over `bytesPerThread` bytes. */
export async function measureBandwidth(threads: number, bytesPerThread: number): Promise<number> {
  return loadNative().measureBandwidth(threads, bytesPerThread);
}

/** The file of the model that ships: models/ lies beside lib/ and dist/. */
export function shippedModelPath(): string {
  return unpacked(path.join(__dirname, '..', 'models', 'stories-24l', 'stories-24l-q8_0.gguf'));
}

interface ModelParts {
  handle: ModelHandle;
  /** Whether the weights are random. */
  random: boolean;
  config: ModelConfig;
  plan: Plan;
  tokenizer: Tokenizer | CqilError;
  backend: 'cpu' | 'cuda';
  execution: Execution;
  threads: number;
  contextLength: number | undefined;
  kvCache: KvCache;
  activations: Activations;
  choices: ExecutionChoices;
}

/** A loaded model. After `dispose()` every method that computes throws or rejects with DISPOSED. */
export class Model {
  /** The model's shape. */
  readonly config: ModelConfig;
  /** What sessions and generations compute unless they say otherwise. */
  readonly plan: Plan;
  readonly backend: 'cpu' | 'cuda';
  readonly threads: number;
  /** How sessions keep keys and values unless they say otherwise. */
  readonly kvCache: KvCache;
  /** What vectors are when weights are multiplied with them. */
  readonly activations: Activations;
  readonly #handle: ModelHandle;
  readonly #tokenizer: Tokenizer | CqilError;
  readonly #execution: Execution;
  readonly #contextLength: number | undefined;
  readonly #choices: ExecutionChoices;
  readonly #native = loadNative();
  readonly #queue = new WorkQueue();
  readonly #host: SessionHost;
  readonly #generationModel: GenerationModel;
  readonly #adapted: AdaptedWeights;
  /** Open sessions. Those that were dropped without `close()` are freed once they are collected. */
  readonly #sessions = new Map<SessionHandle, { session: WeakRef<Session>; plan: Plan }>();
  readonly #dropped = new FinalizationRegistry<SessionHandle>((handle) => this.#release(handle));
  readonly #made = new WeakSet<Session>();
  #disposal: Promise<void> | undefined;

  /** @internal */
  constructor(parts: ModelParts) {
    this.config = parts.config;
    this.plan = parts.plan;
    this.backend = parts.backend;
    this.threads = parts.threads;
    this.kvCache = parts.kvCache;
    this.activations = parts.activations;
    this.#handle = parts.handle;
    this.#tokenizer = parts.tokenizer;
    this.#execution = parts.execution;
    this.#contextLength = parts.contextLength;
    this.#choices = parts.choices;
    this.#host = { native: this.#native, queue: this.#queue, vocabSize: this.config.vocabSize, release: (handle) => this.#release(handle) };
    this.#generationModel = {
      vocabSize: this.config.vocabSize,
      contextLength: this.#contextLength ?? this.config.contextLength,
      tokenizer: this.#tokenizer instanceof CqilError ? undefined : this.#tokenizer,
      requireTokenizer: () => this.tokenizer,
      createSession: async (options) => {
        await this.prepare(options.plan);
        return this.createSession(options);
      },
    };
    this.#adapted = new AdaptedWeights({ native: this.#native, queue: this.#queue, config: this.config, base: this.#handle, random: parts.random });
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
   * Makes a plan ready for sessions: reads its adapter and merges it, beside the model's own weights, which other plans go on using. A
   * plan without an adapter is ready as it is, and so is the one given to `loadModel`. Generations do this by themselves.
   *
   * Rejects with FILE_NOT_FOUND, INVALID_CHECKPOINT or UNSUPPORTED_MODEL for an adapter that cannot be read or belongs to another model;
   * INVALID_PLAN, OUT_OF_MEMORY, DISPOSED.
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
    if (adapter !== undefined) this.#adapted.release(adapter);
  }

  /** A new text with an empty KV cache. A plan with an adapter must be ready, see `prepare`. Throws INVALID_ARGUMENT, INVALID_PLAN, OUT_OF_MEMORY, DISPOSED. */
  createSession(options: SessionOptions = {}): Session {
    this.#expectOpen();
    expectOptionNames('createSession', options, ['contextLength', 'plan', 'execution', 'kvCache']);
    const { execution = this.#execution, kvCache = this.kvCache } = options;
    const most = this.config.contextLength;
    const contextLength = options.contextLength ?? this.#contextLength ?? Math.min(most, DEFAULT_SESSION_LENGTH);
    expectContextLength(contextLength, most);
    expectExecution(execution);
    expectKvCache(kvCache);
    const plan = this.#resolve(options.plan);
    const weights = plan.adapter === undefined ? this.#handle : this.#adapted.handle(plan.adapter);
    const handle = this.#native.createSession(weights, { plan: toNativePlan(plan), execution, settled: this.#choices.get(plan), contextLength, kvCache });
    const session = new Session(this.#host, handle, { contextLength, plan, program: () => this.program(plan) });
    this.#sessions.set(handle, { session: new WeakRef(session), plan });
    this.#dropped.register(session, handle);
    this.#made.add(session);
    return session;
  }

  /** The execution that `auto` takes for a plan, once it has measured it, here or in an earlier process; until then undefined. */
  settledExecution(plan?: PlanInput): SettledExecution | undefined {
    return this.#choices.get(this.#resolve(plan));
  }

  /** Generates text after a prompt: a string, or token ids. Throws at once for options that are wrong; see `Generation` for the rest. */
  generate(prompt: string | ArrayLike<number>, options: GenerateOptions = {}): Generation {
    this.#expectOpen();
    const session = options?.session;
    expectOption('session', session, session === undefined || this.#made.has(session), 'a session of this model');
    return new Generation(this.#generationModel, prompt, options);
  }

  /** Stops the work in flight, closes the sessions and frees the weights. Calling it again gives the same promise. */
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
    await this.#queue.idle();
    this.#adapted.dispose();
    this.#native.disposeModel(this.#handle);
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

async function load(checkpoint: Checkpoint, placement: Placement, options: LoadOptions, randomSeed?: number): Promise<Model> {
  const { config, files, tensors } = checkpoint;
  const { onProgress, signal } = options;
  if (placement.contextLength !== undefined) expectContextLength(placement.contextLength, config.contextLength);
  const plan = resolvePlan(options.plan, config.nLayers);
  // Refused before the weights are read rather than after.
  if (plan.adapter !== undefined) {
    if (randomSeed !== undefined) throw randomWithAdapter(plan.adapter);
    await openLora(plan.adapter, config);
  }
  const native = loadNative();
  const total = tensors.reduce((sum, tensor) => sum + tensor.byteLength, 0);
  const threads = options.threads ?? defaultThreads(checkpoint);
  onProgress?.({ phase: 'open', loaded: 0, total });
  throwIfAborted(signal);
  const spec = { shape: nativeShape(config), device: placement.device, threads, files, tensors, randomSeed };
  const { handle, backend, activations } = await loadOn(placement, spec);
  const kvCache = chooseKvCache(placement.kvCache, activations, tensors);
  try {
    if (backend === 'cuda') onProgress?.({ phase: 'read', loaded: total, total });
    const readTheRest = async () => ({
      tokenizer: readTokenizer(checkpoint.tokenizer, config.vocabSize),
      choices: await ExecutionChoices.open(timingIdentity(native.describeMachine(), { backend, threads, kvCache, activations }, checkpoint)),
    });
    // Both have ended when this has: nobody disposes of a model that is being read.
    const [weights, rest] = await Promise.allSettled([backend === 'cpu' ? readWeights(handle, total, options) : undefined, readTheRest()]);
    if (weights.status === 'rejected') throw weights.reason;
    if (rest.status === 'rejected') throw rest.reason;
    throwIfAborted(signal);
    const { tokenizer, choices } = rest.value;
    const model = new Model({ handle, random: randomSeed !== undefined, config, plan, tokenizer, threads, ...placement, backend, kvCache, activations, choices });
    await model.prepare();
    return model;
  } catch (error) {
    native.disposeModel(handle);
    throw error;
  }
}

/** Reads all of the weights, on other threads; JavaScript goes on meanwhile. */
async function readWeights(handle: ModelHandle, total: number, { onProgress, signal }: LoadOptions): Promise<void> {
  const native = loadNative();
  const stop = () => native.cancel(handle);
  let told = 0;
  let failure: { error: unknown } | undefined;
  const tell = (loaded: number) => {
    // What the threads say may come out of turn, and after they have ended.
    if (loaded <= told || failure) return;
    told = loaded;
    try {
      onProgress?.({ phase: 'read', loaded, total });
    } catch (error) {
      failure = { error };
      stop();
    }
  };
  signal?.addEventListener('abort', stop);
  try {
    await native.readModel(handle, tell);
    tell(total);
  } catch (error) {
    failure ??= { error };
  } finally {
    signal?.removeEventListener('abort', stop);
  }
  throwIfAborted(signal);
  if (failure) throw failure.error;
}

/** Threads of the CPU backend unless they are given. */
export function defaultThreads({ tensors }: Pick<Checkpoint, 'tensors'>): number {
  const total = tensors.reduce((sum, tensor) => sum + tensor.byteLength, 0);
  return total < ONE_THREAD_BYTES ? 1 : Math.min(describeMachine().cores, MAX_THREADS);
}

/** `auto` takes the GPU, unless there is none that can be used or it cannot hold or compute this model. */
async function loadOn(wanted: Placement, spec: Omit<ModelSpec, 'backend' | 'activations'> & { tensors: TensorInfo[] }): Promise<{ handle: ModelHandle; backend: 'cpu' | 'cuda'; activations: Activations }> {
  const native = loadNative();
  const on = async (backend: 'cpu' | 'cuda') => {
    const activations = chooseActivations(wanted.activations, backend, spec.tensors, describeMachine);
    return { handle: await native.loadModel({ ...spec, backend, activations }), backend, activations };
  };
  if (wanted.backend !== 'auto') return on(wanted.backend);
  if ((await native.describeCuda()).available) {
    try {
      return await on('cuda');
    } catch (error) {
      if (!(error instanceof CqilError) || !['OUT_OF_MEMORY', 'UNSUPPORTED_MODEL'].includes(error.code)) throw error;
    }
  }
  return on('cpu');
}

/** A model without a usable tokenizer still computes on token ids, so the reason is kept for whoever asks for text. */
function readTokenizer(source: TokenizerSource, vocabSize: number): Tokenizer | CqilError {
  try {
    return loadTokenizer(source, vocabSize);
  } catch (error) {
    if (error instanceof CqilError) return error;
    throw error;
  }
}

function nativeShape(config: ModelConfig): NativeShape {
  const { dim, hiddenDim, headDim, nHeads, nKvHeads, nLayers, vocabSize, normEps, ropeFrequencies, ropeAttentionFactor, ropeInterleaved, slidingWindow } = config;
  return { dim, hiddenDim, headDim, nHeads, nKvHeads, nLayers, vocabSize, normEps, ropeFrequencies, ropeAttentionFactor, ropeInterleaved, slidingWindow };
}
