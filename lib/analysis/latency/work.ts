import { kvBytesPerPosition, type KvCache } from '../../engine/kv_cache.js';
import type { Checkpoint, TensorRole } from '../../checkpoint/types.js';
import type { BackendLimits, PhaseKind, Program } from '../../engine/native.js';
import type { Placement } from '../../engine/placement.js';
import { placeToken, type ScheduleStep, type StepKind } from '../../engine/schedule.js';

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
export type Computing = Pick<Placement, 'backend' | 'threads'>;

/** Where a token is decoded. */
export interface DecodePosition {
  /** Tokens before it. */
  position: number;
  /** Whether its logits are computed. */
  logits: boolean;
}

type LayerPhase = Exclude<PhaseKind, 'embed' | 'head'>;

/** What each phase of a model reads. */
export interface ModelBytes {
  /** Bytes of weights, per layer. */
  layers: ReadonlyArray<Readonly<Record<LayerPhase, number>>>;
  head: number;
  /**
   * Keys and values: bytes per layer and position, how many pieces of work they are, and the positions a query of each
   * layer looks back.
   */
  kv: { bytesPerPosition: number; units: number; windows: readonly number[] };
  /** Whether layers normalise what their blocks compute, a step of its own. */
  postNorms: boolean;
  /** Bytes of matrices, per layer. */
  matrices: readonly number[];
  /** The most bytes of a layer, keys and values included, that one thread computes by itself. */
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
  attention_post_norm: 'attention_out',
  mlp_norm: 'gate_up',
  w_gate: 'gate_up',
  w_up: 'gate_up',
  w_down: 'down',
  mlp_post_norm: 'down',
};

const WITHOUT_WEIGHTS = new Set<StepKind>([
  'join',
  'attention_post_norm',
  'mlp_post_norm',
  'share_attention',
  'reduce',
]);

/** What a token of a model reads. */
export function modelBytes(
  { config, tensors }: Pick<Checkpoint, 'config' | 'tensors'>,
  kvCache: KvCache,
  { aloneBytes, queriesTogether }: Pick<BackendLimits, 'aloneBytes' | 'queriesTogether'>,
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
  const units = config.nKvHeads * Math.ceil(config.nHeads / config.nKvHeads / queriesTogether);
  return {
    layers,
    head,
    kv: {
      bytesPerPosition: kvBytesPerPosition({ ...config, nLayers: 1 }, kvCache),
      units,
      windows: config.layers.map(({ window }) => window),
    },
    postNorms: config.formula.postNorms,
    matrices,
    alone: aloneBytes,
  };
}

/** The schedule of a token with `position` tokens before it. */
export function scheduleOf(
  bytes: ModelBytes,
  program: Program,
  execution: 'wide' | 'lanes',
  { backend, threads }: Computing,
  position: number,
): ScheduleStep[] {
  return placeToken(program, {
    layers: bytes.matrices,
    head: bytes.head,
    kvPerPosition: bytes.kv.bytesPerPosition,
    windows: bytes.kv.windows,
    postNorms: bytes.postNorms,
    alone: bytes.alone,
    execution,
    threads: backend === 'cpu' ? threads : 0,
    position,
  });
}

/** The work of every phase of a program, in its order: what the steps of its schedule read, and who waits. */
export function phaseWork(
  bytes: ModelBytes,
  program: Program,
  execution: 'wide' | 'lanes',
  computing: Computing,
  at: DecodePosition,
): Work[] {
  const steps = scheduleOf(bytes, program, execution, computing, at.position);
  const stepsOf = program.phases.map((): ScheduleStep[] => []);
  for (const step of steps) stepsOf[step.phase]!.push(step);
  return program.phases.map(({ kind }, i) =>
    kind === 'head' && !at.logits ? work({}) : workOf(bytes, kind, stepsOf[i]!, computing, at),
  );
}

function workOf(
  bytes: ModelBytes,
  kind: PhaseKind,
  steps: readonly ScheduleStep[],
  { backend, threads }: Computing,
  at: DecodePosition,
): Work {
  const waits = backend === 'cuda' ? 1 : phaseWaits(kind, steps, threads);
  const reading = steps.filter(reads);
  const [first] = reading as [ScheduleStep];
  const together = backend === 'cpu' && !first.alone ? threads : 1;
  if (kind === 'embed') return work({ waits });
  if (kind === 'head') return work({ waits, head: bytes.head, idle: first.alone ? bytes.head * (threads - 1) : 0 });
  if (backend === 'cpu' && first.crews > 1) return crewWork(bytes, kind, steps, threads, at);
  const layers = reading.flatMap((step) => step.layers);
  const streamed = layers.reduce((sum, layer) => sum + bytes.layers[layer]![kind], 0);
  const kv = kind === 'attention' ? kvBytes(bytes, layers, together, at) : 0;
  if (first.alone) return work({ waits, apart: streamed, idle: streamed * (threads - 1), kv: kv * threads });
  return work(first.allLanes ? { waits, shared: streamed, kv } : { waits, apart: streamed, kv });
}

/** Whether a step reads weights, as others only work on what that gave. */
function reads({ kind }: ScheduleStep): boolean {
  return !WITHOUT_WEIGHTS.has(kind);
}

/** They also wait after the head, at the end of the call, unless one thread computed it. */
function phaseWaits(kind: PhaseKind, steps: readonly ScheduleStep[], threads: number): number {
  const { waits } = waitsIn(steps, threads);
  return kind === 'head' && threads > 1 && !steps[0]!.alone ? waits + 1 : waits;
}

/**
 * How often the threads of the CPU backend wait in some steps: all of them for each other, and those of one crew, on
 * the way of the crew that waits most.
 */
export function waitsIn(steps: readonly ScheduleStep[], threads: number): Pick<Work, 'waits' | 'crewWaits'> {
  if (threads === 1) return { waits: 0, crewWaits: 0 };
  const crews = new Map<number, number>();
  for (const step of steps)
    if (step.meeting === 'crew' && membersOf(step, threads) > 1) crews.set(step.crew, (crews.get(step.crew) ?? 0) + 1);
  return {
    waits: steps.filter(({ meeting }) => meeting === 'everybody').length,
    crewWaits: Math.max(0, ...crews.values()),
  };
}

/** The threads of a step's crew that compute it. */
function membersOf({ alone, crew, crews }: ScheduleStep, threads: number): number {
  return alone ? 1 : Math.ceil((threads - crew) / crews);
}

/** A phase whose lanes are spread over crews. */
function crewWork(
  bytes: ModelBytes,
  kind: LayerPhase,
  steps: readonly ScheduleStep[],
  threads: number,
  at: DecodePosition,
): Work {
  let [streamed, busiest, kv] = [0, 0, 0];
  const inCrews = steps.filter(({ kind: step }) => step !== 'join');
  const { crews } = inCrews[0]!;
  for (let crew = 0; crew < crews; crew++) {
    const own = inCrews.filter((step) => step.crew === crew && reads(step));
    const size = membersOf(own[0]!, threads);
    const ownBytes = own.reduce((sum, { layers }) => sum + bytes.layers[layers[0]!]![kind], 0);
    streamed += ownBytes;
    busiest = Math.max(busiest, ownBytes / size);
    if (kind === 'attention') {
      const each = own.map((step) => kvBytes(bytes, step.layers, size, at));
      kv = Math.max(kv, (each.reduce((sum, one) => sum + one, 0) * threads) / size);
    }
  }
  return work({ ...waitsIn(steps, threads), apart: streamed, idle: busiest * threads - streamed, kv });
}

/** Keys and values of layers; of the busiest of some threads, times the threads. */
function kvBytes({ kv }: ModelBytes, layers: readonly number[], threads: number, { position }: DecodePosition): number {
  const positions = layers.reduce((sum, layer) => sum + Math.min(position + 1, kv.windows[layer] || Infinity), 0);
  const units = layers.length * kv.units;
  return ((kv.bytesPerPosition * positions) / units) * Math.ceil(units / threads) * threads;
}

function work(parts: Partial<Work>): Work {
  return { waits: 0, crewWaits: 0, shared: 0, apart: 0, idle: 0, head: 0, kv: 0, ...parts };
}

/** How often a thread waits for others on its way through one token; 0 with a single thread. */
export function barriersPerToken(
  bytes: ModelBytes,
  program: Program,
  execution: 'wide' | 'lanes',
  computing: Computing,
): number {
  const { waits, crewWaits } = sumWork(phaseWork(bytes, program, execution, computing, { position: 0, logits: true }));
  return waits + crewWaits;
}

export function sumWork(parts: readonly Work[]): Work {
  const sum = work({});
  for (const part of parts) for (const kind of WORK_KINDS) sum[kind] += part[kind];
  return sum;
}
