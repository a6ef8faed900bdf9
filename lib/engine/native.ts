import type { LoraPair } from '../checkpoint/lora.js';
import type { Activations } from './activations.js';
import type { DType, Formula, ModelConfig, TensorRole } from '../checkpoint/types.js';
import type { CqilError } from '../errors.js';
import type { Plan } from '../plan/plan.js';
import type { KvCache } from './kv_cache.js';
import { pick } from '../util/pick.js';
import type { Shortlist } from './shortlist.js';

/**
 * Everything that crosses into C++, mirrored by the table in native/addon/addon.cc. Options are validated before they
 * get here.
 */
export interface NativeAddon {
  /** What this machine has. */
  describeMachine(): MachineInfo;
  /** Whether and with what CUDA can be used. Starts the driver on first use. */
  describeCuda(): Promise<CudaInfo>;
  /** Read bandwidth in GB/s of this many threads streaming over this many bytes each. */
  measureBandwidth(threads: number, bytesPerThread: number): Promise<number>;
  /** Compiles a plan for a shape; pure, touches no weights. */
  compileProgram(shape: NativeShape, plan: NativePlan): Program;
  /**
   * Says who computes each step of a token, and who meets then; pure: [steps][9], see `lib/engine/schedule.ts`.
   */
  place(plan: NativePlan, request: PlaceRequest): Int32Array;
  /**
   * Maps the files, or allocates memory that `readModel` reads them into, or makes random weights. Checks every tensor
   * against the shape.
   */
  loadModel(spec: ModelSpec | AdaptedSpec): Promise<ModelHandle>;
  /**
   * Brings the weights to where products read them, so that later calls do not wait for the disk; once, and without an
   * adapter. `onProgress` is told how many bytes are there, perhaps out of turn, or after the promise has settled; it
   * must not throw.
   */
  readModel(model: ModelHandle, onProgress: (loaded: number) => void): Promise<void>;
  /**
   * Frees the weights; sessions of the model must be closed. Resolves when no thread uses the weights or their files
   * any more.
   */
  disposeModel(model: ModelHandle): Promise<void>;
  /** Allocates the KV cache (committed as it is used) and compiles the plan. */
  createSession(model: ModelHandle, options: SessionSpec): SessionHandle;
  /** Runs tokens at a position. At most MAX_BATCH ids a call; one call at a time per model. */
  forward(session: SessionHandle, request: ForwardRequest): Promise<Float32Array | Shortlist | null>;
  /**
   * Runs requests of sessions of one model together: those of one program in one forward, up to MAX_BATCH ids. Each has
   * its own outcome, with the bits that it has alone on the CPU.
   */
  forwardTogether(calls: Array<{ session: SessionHandle; request: ForwardRequest }>): Promise<Outcome[]>;
  /**
   * Runs one token as `forward` does and says when each thread computed what.
   */
  timeline(session: SessionHandle, request: ForwardRequest): Promise<NativeTimeline>;
  /**
   * Makes what is in flight, if anything, reject with ABORTED: a forward at the next stage, reading after the pieces it
   * is at.
   */
  cancel(work: SessionHandle | ModelHandle): void;
  /**
   * Gives the execution and number of threads that `auto` uses for the session's program at present. Null while it is
   * still trying the possible ones, and when only one is possible.
   */
  closeSession(session: SessionHandle): SettledExecution | null;
  /** One rank's end of an exchange. Rank 0 makes it; the others find it at its address. */
  openExchange(spec: ExchangeSpec): ExchangeEnd;
  /** On a rank but the first: computes what the leader tells until it lets go. */
  followLeader(model: ModelHandle): Promise<void>;
}

declare const modelBrand: unique symbol;
declare const sessionBrand: unique symbol;
declare const exchangeBrand: unique symbol;
export type ModelHandle = { readonly [modelBrand]: true };
export type SessionHandle = { readonly [sessionBrand]: true };
export type ExchangeHandle = { readonly [exchangeBrand]: true };

export interface ExchangeEnd {
  readonly handle: ExchangeHandle;
  /** Where other ranks find rank 0. */
  readonly address: string;
  /** Resolves when all ranks have come. Rejects with RANK_LOST after `patience` milliseconds. */
  meet(patience: number): Promise<void>;
  /** Ends every wait on all ranks with RANK_LOST and this sentence. `rank`: the one that is lost, -1 if none. */
  abort(rank: number, why: string): void;
  /** Gives the end up; a model that is joined by it keeps it as long as it needs it. */
  close(): void;
}

export interface ExchangeSpec {
  /** `shm`: between processes of one host. */
  kind: 'shm';
  rank: number;
  size: number;
  /** Not on rank 0. */
  address?: string;
}

/** Tokens one `forward` takes at most: the height of the engine's activation buffers. */
export const MAX_BATCH = 256;
/** Tokens of a forward that are traced at most. */
export const MAX_TRACE = 32;
/** Tokens of a forward at most when the logits, or a shortlist, after each of them are wanted. */
export const MAX_LOGIT_ROWS = 32;

const SHAPE = [
  'dim',
  'hiddenDim',
  'headDim',
  'nHeads',
  'nKvHeads',
  'nLayers',
  'vocabSize',
  'ropeDim',
  'ropeFrequencies',
  'ropeAttentionFactor',
  'ropeInterleaved',
  'layers',
] as const;
/** What the addon needs of a model's configuration. */
export interface NativeShape extends Pick<ModelConfig, (typeof SHAPE)[number]> {
  /** Epsilon of norms of the residual stream, and of all others. */
  normEps: number;
  ownNormEps: number;
  nRopes: number;
  formula: Pick<Formula, 'activation' | 'embeddingScale' | 'attentionScale' | 'attentionCap' | 'logitCap'>;
  /** Folded into the weights of norms: added to all, and multiplied to the last. */
  normOffset: number;
  logitScale: number;
  /** What 1 in the engine's residual stream stands for. */
  streamUnit: number;
}

/** Groups as [first layer, size]; every other layer is a stage of its own. */
export interface NativePlan {
  groups: Array<[first: number, size: number]>;
  bypass: number;
  bypassMode: 'paper' | 'official';
}

/** What a schedule is made for: the bytes that a token reads, who computes it, and where it is in the text. */
export interface PlaceRequest {
  /** Bytes of the matrices of each layer. */
  layers: readonly number[];
  /** Bytes of the output projection. */
  head: number;
  /** Bytes of keys and values per layer and position. */
  kvPerPosition: number;
  /** Positions a query of each layer looks back; 0: all. */
  windows: readonly number[];
  /** Whether layers normalise what their blocks compute. */
  postNorms: boolean;
  /** The most bytes of a layer, keys and values included, that one thread computes by itself. */
  alone: number;
  execution: 'wide' | 'lanes';
  /** 0 on a device. */
  threads: number;
  position: number;
}

export interface NativeTensor {
  role: TensorRole;
  layer: number;
  dtype: DType;
  rows: number;
  cols: number;
  file: number;
  offset: number;
}

export interface ModelSpec {
  shape: NativeShape;
  backend: 'cpu' | 'cuda';
  /** Index of the CUDA device. */
  device: number;
  threads: number;
  /** `bf16` and `int8`: of the CPU backend. */
  activations: Activations;
  /**
   * On the CPU: the most bytes of a layer, its weights and its keys and values, that a token reads where one thread
   * computes the layer.
   */
  aloneBytes: number;
  files: string[];
  /** Whether the files are mapped, rather than read into memory of their own. */
  mmap: boolean;
  tensors: NativeTensor[];
  /** When set, `files` is empty and every tensor is filled with random weights from this seed. */
  randomSeed?: number;
  /** Where this process is one of several that compute the model. */
  rank?: RankSpec;
}

/** How a model is shared out to ranks; see `Placement`. */
export type Split = 'lanes' | 'hybrid' | 'tensor';

export interface RankSpec {
  exchange: ExchangeHandle;
  split: Split;
  /** [ranks] how much each should have, in proportion. */
  ratios: readonly number[];
  /** Whose lanes ranks hold. */
  plan: NativePlan;
  /** Milliseconds for which others are waited for within a call; 0: for ever. */
  patience: number;
}

/**
 * A model that shares all of another's weights but those an adapter updates, W + scale · B · A, which are merged in
 * float32 and rounded once: to their own format, or to Q8_0 from formats of fewer bits. It runs on the other's threads
 * or device, and keeps it alive.
 */
export interface AdaptedSpec {
  base: ModelHandle;
  /** The adapter's weights. */
  file: string;
  pairs: LoraPair[];
}

/** `persistent`, one kernel that walks a whole token, is the cuda backend's alone. */
export type Execution = 'auto' | 'wide' | 'lanes' | 'persistent';

/** The way in which tokens of a program are computed, found by measuring the possible ones. */
export interface SettledExecution {
  execution: Exclude<Execution, 'auto'>;
  /** How many of the model's threads compute a token; 0 on a GPU. */
  threads: number;
}

export interface SessionSpec {
  plan: NativePlan;
  execution: Execution;
  /** The way that `auto` begins with; ignored when the program cannot be computed in it. */
  settled?: SettledExecution;
  /** Positions the KV cache holds. */
  contextLength: number;
  kvCache: KvCache;
}

/** What came of a request; a shortlist is in an array, as there may be several. */
export type Outcome = { value: Float32Array | Shortlist[] | null } | { error: CqilError };

export interface ForwardRequest {
  ids: Int32Array;
  /** Position of ids[0]; at most the number of positions already filled. */
  position: number;
  /**
   * `logits`: [vocabSize] after the last id. `scores`: [ids.length − 1] log-probability (nats) of ids[i+1] after
   * ids[i], and one more, of `next` after the last id, when `next` is given. `trace`, of at most MAX_TRACE ids:
   * [nLayers][3][ids.length][dim], see `Session.trace`. `all_logits`, of at most MAX_LOGIT_ROWS ids:
   * [ids.length][vocabSize], a row after each. `shortlist`: a Shortlist, the `count` highest logits, 1 to
   * MAX_SHORTLIST, after the last id. `none`: null. All others are a Float32Array.
   */
  output: 'none' | 'logits' | 'scores' | 'trace' | 'all_logits' | 'shortlist';
  count?: number;
  /**
   * For shortlists after each of the last ids, how many of these, up to MAX_LOGIT_ROWS; `forwardTogether` gives them.
   */
  listed?: number;
  /**
   * For a shortlist: the forward of its first token begins at once. If the next request of this model is for just that
   * token and as long a list, it is answered from there. Any other request stops it.
   */
  ahead?: boolean;
  next?: number;
}

export type PhaseKind = 'embed' | 'qkv' | 'attention' | 'attention_out' | 'gate_up' | 'down' | 'head';

export interface Phase {
  kind: PhaseKind;
  /** Stage index; −1 for embed and head. */
  stage: number;
  /** Layers computed side by side, one lane each; empty for embed and head. */
  layers: number[];
}

/** What a plan compiles to: the dependent phases of one forward pass, in order. */
export interface Program {
  phases: Phase[];
  stages: number;
  /** Dependent phases inside layers: 5 per stage, without embed and head. */
  layerPhases: number;
  bypass: number;
  bypassMode: 'paper' | 'official';
}

/** What only a backend knows of itself. */
export interface BackendLimits {
  /**
   * Bytes of a layer, its weights and what is cached of it, up to which one thread computes it for a token: to meet the
   * others after each of its phases would take longer.
   */
  aloneBytes: number;
  /** Query heads of one key/value head that a thread attends with at a time. */
  queriesTogether: number;
  /** Whether a token that is cancelled ends at its next stage, or is computed whole once it has begun. */
  stopsAtStage: boolean;
  /** Most calls that a forward computes together, rather than one after the other. */
  rowsTogether: number;
}

/** What `timeline` gives: spans [spans][step, thread, begin, end], in nanoseconds, and the rows of the schedule. */
export interface NativeTimeline {
  spans: Float64Array;
  schedule: Int32Array;
}

export interface MachineInfo {
  arch: string;
  cpu: string;
  /** Physical cores this process may run on. */
  cores: number;
  /** Instruction sets compiled in, best last, and the one dispatch picked. */
  isas: Array<{ name: string; supported: boolean }>;
  isa: string;
  /** Whether that one multiplies bf16: then activations rounded to bf16 are faster than float32. */
  bf16Products: boolean;
  memoryBytes: number;
  /** Of the CPU backend. */
  limits: BackendLimits;
  /** Tells this build of the addon from others: its size and when it was made. */
  build: string;
}

export interface CudaInfo {
  available: boolean;
  /** Why it cannot be used, without a full stop; empty when it can. */
  reason: string;
  /** The backend library's file; empty when none was found. */
  library: string;
  devices: Array<{ name: string; capability: string; multiprocessors: number; memoryBytes: number }>;
  /** Of the cuda backend, when it can be used. */
  limits?: BackendLimits;
}

export function nativeShape(config: ModelConfig): NativeShape {
  const { formula, normEps, ropeDim, ropeFrequencies } = config;
  const { normOffset, logitScale, residualScale } = formula;
  return {
    ...pick(config, SHAPE),
    normEps: normEps / residualScale ** 2,
    ownNormEps: normEps,
    nRopes: ropeFrequencies.length / (ropeDim / 2),
    formula: {
      ...pick(formula, ['activation', 'attentionScale', 'attentionCap', 'logitCap']),
      embeddingScale: formula.embeddingScale / residualScale,
    },
    normOffset,
    logitScale,
    streamUnit: residualScale,
  };
}

/** The plan as the engine takes it. */
export function toNativePlan(plan: Plan): NativePlan {
  return {
    groups: plan.groups.map((group) => [group[0]!, group.length]),
    bypass: plan.bypass,
    bypassMode: plan.bypassMode,
  };
}
