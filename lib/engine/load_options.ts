import { throwIfAborted } from '../util/abort.js';
import { ACTIVATIONS_CHOICES, type ActivationsChoice } from './activations.js';
import { KV_CACHE_CHOICES, KV_CACHES, type KvCache, type KvCacheChoice } from './kv_cache.js';
import type { Execution, Split } from './native.js';
import {
  expectFunction,
  expectOneOf,
  expectOption,
  isCount,
  isSignal,
  readArgument,
  readKnownOptions,
} from '../util/options.js';
import type { PlanInput } from '../plan/plan.js';

export interface LoadOptions {
  /** Which layers share an input: an object, a file, or `P2-D0-S12-E30`. Default: sequential. */
  plan?: PlanInput;
  /**
   * `cuda` rejects with the reason where it cannot be used. Default `auto`: CUDA where it can be used and takes the
   * model, else the CPU.
   */
  backend?: 'auto' | 'cpu' | 'cuda';
  /**
   * How the layers of a group are computed; changes the time only. Default `auto`: the engine measures while it
   * computes tokens, and uses the fastest execution, with all threads or fewer.
   */
  execution?: Execution;
  /** Index of the CUDA device; this version computes on one. Default [0]. */
  devices?: readonly [number];
  /**
   * How many processes compute the model together on the CPU, 1 to 8: cqil starts all but this one. Each reads and holds
   * its share alone. Default 1.
   */
  ranks?: number;
  /**
   * What ranks hold. `lanes`: whole lanes of groups, and all of the other layers; one exchange a group. `tensor`: slices
   * of every layer; two exchanges a layer or group, and any plan. `hybrid`, the default: whole lanes where every rank
   * gets as many, and slices of everything else. `lanes` and `hybrid` compute the plan that the model is loaded with.
   */
  split?: Split;
  /** How much of what is divided each rank has, in proportion; one number for each. Default: all as much. */
  shares?: readonly number[];
  /** Milliseconds after which a rank that does not answer is lost; a call then rejects with RANK_LOST. Default 30000. */
  rankTimeout?: number;
  /**
   * The most threads that the CPU backend uses. A layer of which a token reads less than 512 KB is computed by one of
   * them. Default: one per physical core, or 1 for weights under 4 MB.
   */
  threads?: number;
  /**
   * Positions of sessions that do not say, and the most a generation takes. Default: the model's own, up to 4096 for
   * sessions.
   */
  contextLength?: number;
  /**
   * How sessions that do not say keep keys and values. `f32` keeps log-probabilities within 1e-4 of float64. The others
   * save memory and time: `f16` takes half of it and moves log-probabilities by up to 2e-2, at a KL divergence below
   * 1e-5; `q8_0` takes 27 % and moves those of unlikely tokens by tenths, at a KL divergence below 1e-2. Calls whose
   * keys or values are beyond 65504 in `f16`, or 8.3e6 in `q8_0`, reject with NOT_FINITE. `auto`, the default, is f16
   * where activations are rounded, and f32 otherwise; `model.kvCache` says which it is.
   */
  kvCache?: KvCacheChoice;
  /**
   * What a vector is when weights are multiplied with it. `float32` keeps log-probabilities within 1e-4 of float64.
   * `int8` rounds it in blocks of 32 where the weights are Q8_0, Q4_0, Q4_K or Q6_K, on the CPU: prefill and decoding
   * are then up to twice as fast and more, at a KL divergence below 1e-3 from float32. `bf16` rounds it where the
   * weights are BF16, on the CPU: at one below 2e-4; prefill is then half as fast again where the processor multiplies
   * bf16 (AVX512_BF16), and elsewhere nothing is gained. The results have the same bits for any number of threads and
   * any split of a prompt all the same. With `backend: 'auto'` either means the CPU. `auto`, the default, is on the CPU
   * that which applies to most of the weights and is faster, and float32 otherwise; `model.activations` says which it
   * is. Weights that int8 applies to are copied into memory of their own while they are read.
   */
  activations?: ActivationsChoice;
  /**
   * Whether the files of the weights are mapped and used in place. Default true: that takes no memory of the process,
   * and files in the system's cache need not be read again. While the model is in use, a mapped file must not be
   * written to or shortened: every further call then rejects with FILE_CHANGED. Replacing it with another file of its
   * name is safe. `false` reads the files into memory of the process, and what happens to them after loading does not
   * matter. Weights that int8 applies to, except token embeddings, are copied in both cases.
   */
  mmap?: boolean;
  /** Told how far the weights have been read. */
  onProgress?: (progress: LoadProgress) => void;
  /**
   * Called with one sentence for everything in the model's files that is not followed. CQIL_TOKENIZER: something about
   * the tokenizer, such as an end of text that the vocabulary lacks. CQIL_PUBLISHED_PLAN: the plan in its config.json.
   * `model.warnings` has these sentences too. Default: `process.emitWarning`.
   */
  onWarning?: (warning: string, code: 'CQIL_TOKENIZER' | 'CQIL_PUBLISHED_PLAN') => void;
  /** Stops loading within a hundred megabytes, or after the copy to a GPU; it then rejects with ABORTED. */
  signal?: AbortSignal;
}

/** `open`: the files' headers are read. `read`: `loaded` of `total` bytes of weights are in memory. */
export interface LoadProgress {
  phase: 'open' | 'read';
  loaded: number;
  total: number;
}

export interface SessionOptions {
  /**
   * Positions the KV cache holds; its memory is taken as it fills. Default: the model's `contextLength` option, or its
   * own up to 4096.
   */
  contextLength?: number;
  /** Default: the model's. */
  plan?: PlanInput;
  /** Default: the model's. */
  execution?: Execution;
  /** Default: the model's. */
  kvCache?: KvCache;
}

export const MAX_THREADS = 256;
const BACKEND_CHOICES = ['auto', 'cpu', 'cuda'] as const;
const EXECUTION_CHOICES = ['auto', 'wide', 'lanes', 'persistent'] as const;
const LOAD_OPTIONS = [
  'plan',
  'backend',
  'execution',
  'devices',
  'ranks',
  'split',
  'shares',
  'rankTimeout',
  'threads',
  'contextLength',
  'kvCache',
  'activations',
  'mmap',
  'onProgress',
  'onWarning',
  'signal',
];

/** The options of `loadModel` that do not depend on the model, checked and with their defaults. */
export interface CheckedOptions {
  /** [ranks] the share of each, in proportion. */
  ranks: readonly number[];
  split: Split;
  rankTimeout: number;
  backend: 'auto' | 'cpu' | 'cuda';
  device: number;
  execution: Execution;
  contextLength: number | undefined;
  kvCache: KvCacheChoice;
  activations: ActivationsChoice;
  mmap: boolean;
}

/** The options of `loadModel`, copied, and those that were checked. Throws INVALID_ARGUMENT; ABORTED. */
export function readOptions(given: LoadOptions): { options: LoadOptions; checked: CheckedOptions } {
  const options = readKnownOptions('loadModel', given, LOAD_OPTIONS);
  return { options, checked: readArgument('The options of loadModel', () => checkedOptions(options)) };
}

function checkedOptions(options: LoadOptions): CheckedOptions {
  const {
    backend = 'auto',
    execution = 'auto',
    devices,
    threads,
    contextLength,
    kvCache = 'auto',
    activations = 'auto',
    mmap = true,
    onProgress,
    onWarning,
    signal,
  } = options;
  expectOneOf('backend', backend, BACKEND_CHOICES);
  expectDevices(devices);
  const countUpTo = (value: unknown, most?: number) => value === undefined || isCount(value, most);
  expectOption('threads', threads, countUpTo(threads, MAX_THREADS), `an integer from 1 to ${MAX_THREADS}`);
  expectOption('contextLength', contextLength, countUpTo(contextLength), 'an integer, 1 or more');
  expectOneOf('kvCache', kvCache, KV_CACHE_CHOICES);
  expectOneOf('activations', activations, ACTIVATIONS_CHOICES);
  const rounded = activations === 'bf16' || activations === 'int8';
  if (backend === 'cuda') expectOption('activations', activations, !rounded, 'auto or float32 on the cuda backend');
  expectOption('mmap', mmap, typeof mmap === 'boolean', 'true or false');
  expectFunction('onProgress', onProgress);
  expectFunction('onWarning', onWarning);
  expectOption('signal', signal, isSignal(signal), 'an AbortSignal');
  expectExecution(execution);
  const ranks = checkedRanks(options);
  throwIfAborted(signal);
  return {
    ...ranks,
    backend: rounded || ranks.ranks.length > 1 ? 'cpu' : backend,
    device: devices?.[0] ?? 0,
    execution,
    contextLength,
    kvCache,
    activations,
    mmap,
  };
}

function expectDevices(devices: LoadOptions['devices']): void {
  const isIndex = (device: unknown) => Number.isSafeInteger(device) && (device as number) >= 0;
  expectOption(
    'devices',
    devices,
    devices === undefined || (Array.isArray(devices) && devices.length === 1 && isIndex(devices[0])),
    'a list of one index: this version computes on one device',
  );
}

const MAX_RANKS = 8;
const MAX_SHARE = 65536;
const DEFAULT_RANK_TIMEOUT = 30_000;
const MAX_RANK_TIMEOUT = 86_400_000;

function checkedRanks(options: LoadOptions): Pick<CheckedOptions, 'ranks' | 'split' | 'rankTimeout'> {
  const { ranks = 1, split = 'hybrid', rankTimeout = DEFAULT_RANK_TIMEOUT, backend } = options;
  expectOption('ranks', ranks, isCount(ranks, MAX_RANKS), `an integer from 1 to ${MAX_RANKS}`);
  expectOneOf('split', split, ['lanes', 'hybrid', 'tensor']);
  const shares = options.shares ?? Array.from({ length: ranks }, () => 1);
  expectOption(
    'shares',
    shares,
    Array.isArray(shares) && shares.length === ranks && Array.from(shares).every((share) => isCount(share, MAX_SHARE)),
    `a list of integers from 1 to ${MAX_SHARE}, as many as there are ranks, which is ${ranks}`,
  );
  const most = MAX_RANK_TIMEOUT;
  expectOption('rankTimeout', rankTimeout, isCount(rankTimeout, most), `milliseconds, an integer from 1 to ${most}`);
  if (ranks > 1) expectOption('backend', backend, backend !== 'cuda', 'auto or cpu with more than one rank');
  return { ranks: [...shares], split, rankTimeout };
}

export function expectExecution(execution: string): asserts execution is Execution {
  expectOneOf('execution', execution, EXECUTION_CHOICES);
}

export function expectKvCache(kvCache: string): asserts kvCache is KvCache {
  expectOneOf('kvCache', kvCache, KV_CACHES);
}

export function expectContextLength(contextLength: number, most: number): void {
  expectOption(
    'contextLength',
    contextLength,
    isCount(contextLength, most),
    `an integer from 1 to the model's ${most} positions`,
  );
}
