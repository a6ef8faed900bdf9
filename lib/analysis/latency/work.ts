import { kvBytesPerPosition, type KvCache } from '../../engine/kv_cache.js';
import type { Checkpoint, TensorRole } from '../../checkpoint/types.js';
import type { Phase, PhaseKind, Program } from '../../engine/native.js';

/** What takes time in a forward of one token, counted. Bytes are of weights unless they say otherwise. */
export interface Work {
  /** How often all threads wait for the last of them; on a GPU, dependent phases. */
  waits: number;
  /** How often the threads of one crew wait for each other, on the way of the crew that waits most. */
  crewWaits: number;
  /** Bytes that all threads stream together. */
  shared: number;
  /** Bytes that crews stream, each its own layers. */
  apart: number;
  /** Bytes that threads without a lane could have streamed until the others were done. */
  idle: number;
  /** Bytes of the output projection. */
  head: number;
  /** Bytes of keys and values; those of the busiest thread, times the threads. */
  kv: number;
}

export const WORK_KINDS = [
  'waits',
  'crewWaits',
  'shared',
  'apart',
  'idle',
  'head',
  'kv',
] as const satisfies ReadonlyArray<keyof Work>;

/** What computes. */
export interface Placement {
  backend: 'cpu' | 'cuda';
  threads: number;
}

/** One decoded token. */
export interface Token {
  /** Tokens before it. */
  position: number;
  /** Whether its logits are computed. */
  logits: boolean;
}

type LayerPhase = Exclude<PhaseKind, 'embed' | 'head'>;

/** What each phase of a model reads. */
export interface ModelBytes {
  /** Of weights, per layer. */
  layers: ReadonlyArray<Readonly<Record<LayerPhase, number>>>;
  head: number;
  /**
   * Of keys and values: per layer and position, how many pieces of work they are, and the positions a query looks back.
   */
  kv: { bytesPerPosition: number; units: number; window: number };
  /** Of matrices, per layer. */
  matrices: readonly number[];
  /** Layers of at most so many bytes, keys and values included, are computed by one thread. */
  alone: number;
}

const PHASE_OF_ROLE: Partial<Record<TensorRole, LayerPhase>> = {
  attention_norm: 'qkv',
  wq: 'qkv',
  wk: 'qkv',
  wv: 'qkv',
  bq: 'qkv',
  bk: 'qkv',
  bv: 'qkv',
  q_norm: 'qkv',
  k_norm: 'qkv',
  wo: 'attention_out',
  bo: 'attention_out',
  mlp_norm: 'gate_up',
  w_gate: 'gate_up',
  w_up: 'gate_up',
  w_down: 'down',
};
/** Query heads of one key/value head that a thread computes together: kAttendQueries in native/cpu/kernels. */
const QUERIES_TOGETHER = 4;
/**
 * How many times as many bytes the output projection may have to be computed by one thread: kAloneHead in
 * native/core/schedule.cc.
 */
const ALONE_HEAD = 4;

export function modelBytes(
  { config, tensors }: Pick<Checkpoint, 'config' | 'tensors'>,
  kvCache: KvCache,
  alone: number,
): ModelBytes {
  const layers = Array.from({ length: config.nLayers }, () => ({
    qkv: 0,
    attention: 0,
    attention_out: 0,
    gate_up: 0,
    down: 0,
  }));
  const matrices = Array.from({ length: config.nLayers }, () => 0);
  let head = 0;
  for (const { role, layer, rows, byteLength } of tensors) {
    const phase = PHASE_OF_ROLE[role];
    if (phase && rows > 1) matrices[layer]! += byteLength;
    if (phase) layers[layer]![phase] += byteLength;
    else if (role === (config.tiedEmbeddings ? 'token_embedding' : 'output')) head += byteLength;
  }
  const units = config.nKvHeads * Math.ceil(config.nHeads / config.nKvHeads / QUERIES_TOGETHER);
  return {
    layers,
    head,
    kv: {
      bytesPerPosition: kvBytesPerPosition({ ...config, nLayers: 1 }, kvCache),
      units,
      window: config.slidingWindow,
    },
    matrices,
    alone,
  };
}

/** The work of every phase of a program, in its order. Follows native/core/schedule.cc. */
export function phaseWork(
  bytes: ModelBytes,
  program: Program,
  execution: 'wide' | 'lanes',
  { backend, threads }: Placement,
  token: Token,
): Work[] {
  const single = backend === 'cpu' && threads === 1;
  const alone = backend === 'cpu' && !single ? alonePhases(bytes, program, execution, token) : [];
  return program.phases.map((phase, i): Work => {
    if (alone[i]) return aloneWork(bytes, phase, threads, token, alone[i + 1] === false);
    if (phase.kind === 'head' && !token.logits) return work({});
    const waits = single ? 0 : 1;
    if (phase.kind === 'embed') return work({ waits });
    if (phase.kind === 'head') return work({ waits, head: bytes.head });
    const apart = execution === 'lanes' && phase.layers.length > 1;
    if (backend === 'cpu' && apart && !single)
      return crewWork(bytes, phase, phase.kind, program.bypass, threads, token);
    const streamed = phase.layers.reduce((sum, layer) => sum + bytes.layers[layer]![phase.kind as LayerPhase], 0);
    const kv =
      phase.kind === 'attention' ? kvBytes(bytes, phase.layers.length, backend === 'cpu' ? threads : 1, token) : 0;
    return work(apart ? { waits, apart: streamed, kv } : { waits, shared: streamed, kv });
  });
}

/** Which phases one thread computes, the others waiting, because the layers are so small. */
function alonePhases(bytes: ModelBytes, program: Program, execution: 'wide' | 'lanes', token: Token): boolean[] {
  let allBefore = true;
  return program.phases.map(({ kind, layers }) => {
    const alone =
      kind === 'embed'
        ? bytes.alone > 0
        : kind === 'head'
          ? allBefore && bytes.head <= ALONE_HEAD * bytes.alone
          : !(execution === 'lanes' && layers.length > 1) && isSmall(bytes, layers, token);
    allBefore &&= alone;
    return alone;
  });
}

function isSmall(bytes: ModelBytes, layers: readonly number[], token: Token): boolean {
  return (
    layers.reduce((sum, layer) => sum + bytes.matrices[layer]!, kvBytes(bytes, layers.length, 1, token)) <= bytes.alone
  );
}

/** `joins`: whether the others, who have waited, go on after this phase. */
function aloneWork(bytes: ModelBytes, { kind, layers }: Phase, threads: number, token: Token, joins: boolean): Work {
  const waits = joins ? 1 : 0;
  if (kind === 'embed') return work({ waits });
  if (kind === 'head' && !token.logits) return work({});
  if (kind === 'head') return work({ waits, head: bytes.head, idle: bytes.head * (threads - 1) });
  const streamed = layers.reduce((sum, layer) => sum + bytes.layers[layer]![kind], 0);
  const kv = kind === 'attention' ? kvBytes(bytes, layers.length, 1, token) * threads : 0;
  return work({ waits, apart: streamed, idle: streamed * (threads - 1), kv });
}

/** A phase whose lanes are spread over crews: lane l runs on crew l mod n. */
function crewWork(
  bytes: ModelBytes,
  { layers }: Phase,
  kind: LayerPhase,
  bypass: number,
  threads: number,
  token: Token,
): Work {
  const crews = Math.min(layers.length, threads);
  const byOne = isSmall(bytes, layers.slice(0, 1), token);
  let [streamed, busiest, crewWaits, kv] = [0, 0, 0, 0];
  for (let crew = 0; crew < crews; crew++) {
    const size = byOne ? 1 : Math.ceil((threads - crew) / crews);
    const own = layers.filter((_, lane) => lane % crews === crew);
    const ownBytes = own.reduce((sum, layer) => sum + bytes.layers[layer]![kind], 0);
    streamed += ownBytes;
    busiest = Math.max(busiest, ownBytes / size);
    if (size > 1 && kind !== 'down') crewWaits = Math.max(crewWaits, own.length);
    if (kind === 'attention') kv = Math.max(kv, (own.length * kvBytes(bytes, 1, size, token) * threads) / size);
  }
  // All meet after the lanes of `down` and after their sum, and before a bypass is read.
  const waits = kind === 'down' ? 2 : kind === 'attention_out' && bypass > 0 ? 1 : 0;
  return work({ waits, crewWaits, apart: streamed, idle: busiest * threads - streamed, kv });
}

/** Keys and values of a number of layers; of the busiest of some threads, times the threads. */
function kvBytes({ kv }: ModelBytes, layers: number, threads: number, { position }: Token): number {
  const positions = kv.window > 0 ? Math.min(position + 1, kv.window) : position + 1;
  const units = layers * kv.units;
  return ((kv.bytesPerPosition * positions * layers) / units) * Math.ceil(units / threads) * threads;
}

function work(parts: Partial<Work>): Work {
  return { waits: 0, crewWaits: 0, shared: 0, apart: 0, idle: 0, head: 0, kv: 0, ...parts };
}

/** How often a thread waits for others on its way through one token; 0 with a single thread. */
export function barriersPerToken(
  bytes: ModelBytes,
  program: Program,
  execution: 'wide' | 'lanes',
  placement: Placement,
): number {
  const { waits, crewWaits } = sumWork(phaseWork(bytes, program, execution, placement, { position: 0, logits: true }));
  return waits + crewWaits;
}

export function sumWork(parts: readonly Work[]): Work {
  const sum = work({});
  for (const part of parts) for (const kind of WORK_KINDS) sum[kind] += part[kind];
  return sum;
}
