import path from 'node:path';
import { throwIfAborted } from './abort.js';
import { openCheckpoint } from './checkpoint/open.js';
import { syntheticCheckpoint } from './checkpoint/synthetic.js';
import type { Checkpoint, DType, ModelConfig, TokenizerSource } from './checkpoint/types.js';
import { CqilError } from './errors.js';
import { Generation, type GenerateOptions, type GenerationModel } from './generate.js';
import { KV_CACHES, type KvCache } from './kv_cache.js';
import { loadNative, unpacked, type Execution, type MachineInfo, type ModelHandle, type ModelSpec, type NativeShape, type Program, type SessionHandle } from './native.js';
import { expectOption, expectOptionNames, isCount, isSignal } from './options.js';
import { resolvePlan, toNativePlan, type Plan, type PlanInput } from './plan.js';
import { Session, type SessionHost } from './session.js';
import { loadTokenizer, type Tokenizer } from './tokenizer/index.js';
import { WorkQueue } from './work_queue.js';

export interface LoadOptions {
  /** Which layers share an input: an object, a file, or `P2-D0-S12-E30`. Default: sequential. */
  plan?: PlanInput;
  /** Default `auto`: the CPU. */
  backend?: 'auto' | 'cpu' | 'cuda';
  /** How the layers of a group are computed; changes the time only. Default `auto`. */
  execution?: Execution | 'devices';
  /** Device indices; this version computes on one. Default [0]. */
  devices?: readonly number[];
  /** Threads of the CPU backend. Default: one per physical core, or 1 for weights under 4 MB. */
  threads?: number;
  /** Positions of sessions that do not say, and the most a generation takes. Default: the model's own, up to 4096 for sessions. */
  contextLength?: number;
  /**
   * How sessions that do not say keep keys and values. `f32`, the default, keeps log-probabilities within 1e-4 of float64. The others
   * save memory, and time once the cache is larger than the processor's: `f16` takes half of it and moves log-probabilities by up to
   * 2e-2; `q8_0` takes 27 % and moves those of unlikely tokens by tenths, at a KL divergence below 1e-2. Keys or values beyond 65504
   * become infinite in `f16`.
   */
  kvCache?: KvCache;
  /** Told how far the weights have been read. */
  onProgress?: (progress: LoadProgress) => void;
  /** Stops loading within 64 MB; it then rejects with ABORTED. */
  signal?: AbortSignal;
}

/** `open`: the files' headers are read. `read`: `loaded` of `total` bytes of weights are in memory. */
export interface LoadProgress {
  phase: 'open' | 'read';
  loaded: number;
  total: number;
}

export interface SessionOptions {
  /** Positions the KV cache holds; its memory is taken as it fills. Default: the model's `contextLength` option, or its own up to 4096. */
  contextLength?: number;
  /** Default: the model's. */
  plan?: PlanInput;
  /** Default: the model's. */
  execution?: Execution;
  /** Default: the model's. */
  kvCache?: KvCache;
}

const DEFAULT_SESSION_LENGTH = 4096;
/** Between two slices of this size, progress is reported and the signal heard. */
const PREFETCH_BYTES = 64 * 2 ** 20;
/** Below this, joining threads after every phase costs more than they save. */
const ONE_THREAD_BYTES = 4 * 2 ** 20;
const MAX_THREADS = 256;
const LOAD_OPTIONS = ['plan', 'backend', 'execution', 'devices', 'threads', 'contextLength', 'kvCache', 'onProgress', 'signal'];

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

/** Read bandwidth in GB/s of `threads` threads, each streaming over `bytesPerThread` bytes. */
export async function measureBandwidth(threads: number, bytesPerThread: number): Promise<number> {
  return loadNative().measureBandwidth(threads, bytesPerThread);
}

/** The folder of the model that ships: models/ lies beside lib/ and dist/. */
export function shippedModelPath(): string {
  return unpacked(path.join(__dirname, '..', 'models', 'stories-16l'));
}

interface ModelParts {
  handle: ModelHandle;
  config: ModelConfig;
  plan: Plan;
  tokenizer: Tokenizer | CqilError;
  backend: 'cpu' | 'cuda';
  execution: Execution;
  threads: number;
  contextLength: number | undefined;
  kvCache: KvCache;
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
  readonly #handle: ModelHandle;
  readonly #tokenizer: Tokenizer | CqilError;
  readonly #execution: Execution;
  readonly #contextLength: number | undefined;
  readonly #native = loadNative();
  readonly #queue = new WorkQueue();
  readonly #host: SessionHost;
  readonly #generationModel: GenerationModel;
  /** Open sessions. Those that were dropped without `close()` are freed once they are collected. */
  readonly #sessions = new Map<SessionHandle, WeakRef<Session>>();
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
    this.#handle = parts.handle;
    this.#tokenizer = parts.tokenizer;
    this.#execution = parts.execution;
    this.#contextLength = parts.contextLength;
    this.#host = { native: this.#native, queue: this.#queue, vocabSize: this.config.vocabSize, release: (handle) => this.#release(handle) };
    this.#generationModel = {
      vocabSize: this.config.vocabSize,
      contextLength: this.#contextLength ?? this.config.contextLength,
      tokenizer: this.#tokenizer instanceof CqilError ? undefined : this.#tokenizer,
      requireTokenizer: () => this.tokenizer,
      createSession: (options) => this.createSession(options),
    };
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

  /** A new text with an empty KV cache. Throws INVALID_ARGUMENT, INVALID_PLAN, OUT_OF_MEMORY, DISPOSED. */
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
    expectNoAdapter(plan);
    const handle = this.#native.createSession(this.#handle, { plan: toNativePlan(plan), execution, contextLength, kvCache });
    const session = new Session(this.#host, handle, { contextLength, plan });
    this.#sessions.set(handle, new WeakRef(session));
    this.#dropped.register(session, handle);
    this.#made.add(session);
    return session;
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
    for (const [handle, reference] of this.#sessions) {
      const session = reference.deref();
      if (session) session.close();
      else this.#release(handle);
    }
    await this.#queue.idle();
    this.#native.disposeModel(this.#handle);
  }

  #release(handle: SessionHandle): void {
    if (this.#sessions.delete(handle)) this.#native.closeSession(handle);
  }

  #resolve(plan: PlanInput | undefined): Plan {
    return plan === undefined ? this.plan : resolvePlan(plan, this.config.nLayers);
  }

  #expectOpen(): void {
    if (this.#disposal) throw new CqilError('DISPOSED', 'The model is disposed; expected one that is not.');
  }
}

type Placement = Pick<ModelParts, 'backend' | 'execution' | 'contextLength' | 'kvCache'>;

function readOptions(options: LoadOptions): Placement {
  expectOptionNames('loadModel', options, LOAD_OPTIONS);
  const { backend = 'auto', execution = 'auto', devices, threads, contextLength, kvCache = 'f32', onProgress, signal } = options;
  expectOption('backend', backend, ['auto', 'cpu', 'cuda'].includes(backend), 'auto, cpu or cuda');
  expectOption('devices', devices, devices === undefined || (Array.isArray(devices) && devices.length > 0 && devices.every((device) => Number.isSafeInteger(device) && device >= 0)), 'an array of device indices');
  expectOption('threads', threads, threads === undefined || isCount(threads, MAX_THREADS), `an integer from 1 to ${MAX_THREADS}`);
  expectOption('contextLength', contextLength, contextLength === undefined || isCount(contextLength), 'an integer, 1 or more');
  expectKvCache(kvCache);
  expectOption('onProgress', onProgress, onProgress === undefined || typeof onProgress === 'function', 'a function');
  expectOption('signal', signal, isSignal(signal), 'an AbortSignal');
  if (execution === 'devices' || (devices !== undefined && devices.length > 1)) {
    throw new CqilError('BACKEND_UNAVAILABLE', `${execution === 'devices' ? 'The execution devices' : `${devices!.length} devices`} cannot be had: this version computes on one device; expected execution auto, wide or lanes, and one device.`);
  }
  expectExecution(execution);
  throwIfAborted(signal);
  return { backend: backend === 'cuda' ? 'cuda' : 'cpu', execution, contextLength, kvCache };
}

function expectExecution(execution: string): asserts execution is Execution {
  expectOption('execution', execution, ['auto', 'wide', 'lanes'].includes(execution), 'auto, wide or lanes');
}

function expectKvCache(kvCache: string): asserts kvCache is KvCache {
  expectOption('kvCache', kvCache, KV_CACHES.some((known) => known === kvCache), 'f32, f16 or q8_0');
}

/** The weights a plan was distilled with are part of what it computes: without them its text would be silently worse. */
function expectNoAdapter(plan: Plan): void {
  if (plan.adapter !== undefined) throw new CqilError('INVALID_PLAN', `The plan belongs to the adapter ${plan.adapter}, and this version applies none; expected a plan without an adapter.`);
}

function expectContextLength(contextLength: number, most: number): void {
  expectOption('contextLength', contextLength, isCount(contextLength, most), `an integer from 1 to the model's ${most} positions`);
}

async function load(checkpoint: Checkpoint, placement: Placement, options: LoadOptions, randomSeed?: number): Promise<Model> {
  const { config, files, tensors } = checkpoint;
  const { onProgress, signal } = options;
  if (placement.contextLength !== undefined) expectContextLength(placement.contextLength, config.contextLength);
  const plan = resolvePlan(options.plan, config.nLayers);
  expectNoAdapter(plan);
  const native = loadNative();
  const total = tensors.reduce((sum, tensor) => sum + tensor.byteLength, 0);
  const threads = options.threads ?? (total < ONE_THREAD_BYTES ? 1 : Math.min(native.describeMachine().cores, MAX_THREADS));
  onProgress?.({ phase: 'open', loaded: 0, total });
  throwIfAborted(signal);
  const spec: ModelSpec = { shape: nativeShape(config), backend: placement.backend, threads, files, tensors, randomSeed };
  let handle: ModelHandle | undefined;
  try {
    handle = await native.loadModel(spec);
    for (let from = 0; from < total && randomSeed === undefined; from += PREFETCH_BYTES) {
      throwIfAborted(signal);
      const to = Math.min(from + PREFETCH_BYTES, total);
      await native.prefetchModel(handle, from, to);
      onProgress?.({ phase: 'read', loaded: to, total });
    }
    throwIfAborted(signal);
    return new Model({ handle, config, plan, tokenizer: readTokenizer(checkpoint.tokenizer, config.vocabSize), threads, ...placement });
  } catch (error) {
    if (handle) native.disposeModel(handle);
    throw error;
  }
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
