import type { Checkpoint, Formula, ModelConfig, TensorRole } from '../../lib/checkpoint/types.js';
import { readWeights, type Matrix, type Weights } from './weights.js';

/**
 * The slow twin of the engine: DESIGN §1 in float64, whole sequences at once, no cache, no threads, no shortcuts.
 * It shares nothing with the engine but the checkpoint's table of tensors.
 */
export interface ReferenceModel {
  config: ModelConfig;
  weights: Weights;
  /** What a KV cache makes of a key or value of one head [headDim]; unrounded unless given. */
  roundKv?: (head: Float64Array) => Float64Array;
  /** What becomes of a vector before a matrix is multiplied with it; unrounded unless given. */
  roundInput?: (vector: Float64Array) => Float64Array;
}

export interface ReferencePlan {
  groups: number[][];
  bypass: number;
  bypassMode: 'paper' | 'official';
}

export const SEQUENTIAL: ReferencePlan = { groups: [], bypass: 0, bypassMode: 'paper' };

/** One vector per position. */
type Sequence = Float64Array[];

export function referenceModel(checkpoint: Checkpoint): ReferenceModel {
  return { config: checkpoint.config, weights: readWeights(checkpoint) };
}

/** Logits [ids.length][vocabSize] of a whole sequence. */
export function referenceLogits(
  model: ReferenceModel,
  ids: ArrayLike<number>,
  plan: ReferencePlan = SEQUENTIAL,
): Sequence {
  let x = embed(model, ids);
  for (const group of stages(plan, model.config.nLayers)) x = stage(model, x, group, plan);
  const normed = rmsNorm(model, x, 'output_norm', -1);
  const head = weight(model, model.config.tiedEmbeddings ? 'token_embedding' : 'output');
  const { logitScale, logitCap } = model.config.formula;
  return normed.map((h) => multiply(head, rounded(model, h)).map((logit) => capped(logit * logitScale, logitCap)));
}

/** A layer's input and what its two blocks add to it, each [ids.length][dim]. */
export interface ReferenceLayer {
  x: Sequence;
  a: Sequence;
  m: Sequence;
}

/** What every layer does over a whole sequence: [nLayers]. */
export function referenceTrace(
  model: ReferenceModel,
  ids: ArrayLike<number>,
  plan: ReferencePlan = SEQUENTIAL,
): ReferenceLayer[] {
  const trace: ReferenceLayer[] = [];
  let x = embed(model, ids);
  for (const group of stages(plan, model.config.nLayers)) x = stage(model, x, group, plan, trace);
  return trace;
}

/** Log-probabilities (nats) [ids.length][vocabSize]. */
export function referenceLogProbs(
  model: ReferenceModel,
  ids: ArrayLike<number>,
  plan: ReferencePlan = SEQUENTIAL,
): Sequence {
  return referenceLogits(model, ids, plan).map(logSoftmax);
}

export function logSoftmax(logits: ArrayLike<number>): Float64Array {
  let max = -Infinity;
  for (let i = 0; i < logits.length; i++) max = Math.max(max, logits[i]!);
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i]! - max);
  const logSum = max + Math.log(sum);
  const out = new Float64Array(logits.length);
  for (let i = 0; i < out.length; i++) out[i] = logits[i]! - logSum;
  return out;
}

function embed(model: ReferenceModel, ids: ArrayLike<number>): Sequence {
  const embedding = weight(model, 'token_embedding');
  const { embeddingScale } = model.config.formula;
  return Array.from(ids, (id) => row(embedding, id).map((value) => value * embeddingScale));
}

/** The layers in order, grouped ones together. */
function stages(plan: ReferencePlan, nLayers: number): number[][] {
  const groupOf = new Map(plan.groups.map((group) => [group[0]!, group]));
  const out: number[][] = [];
  for (let layer = 0; layer < nLayers; layer += out.at(-1)!.length) out.push(groupOf.get(layer) ?? [layer]);
  return out;
}

/** a_j = A_j(x); b_j = Σ a_{j−k}; m_j = M_j(x + a_j + b_j); y = x + Σ (a_j + m_j), and + b_j in official mode. */
function stage(
  model: ReferenceModel,
  x: Sequence,
  group: number[],
  plan: ReferencePlan,
  trace: ReferenceLayer[] = [],
): Sequence {
  const a = group.map((layer) => attentionBlock(model, x, layer));
  const b = group.map((_, j) => sum(x, a.slice(Math.max(0, j - plan.bypass), j)));
  const m = group.map((layer, j) => mlpBlock(model, add(x, a[j]!, b[j]!), layer));
  a.forEach((_, j) => trace.push({ x, a: a[j]!, m: m[j]! }));
  return add(x, ...a, ...m, ...(plan.bypassMode === 'official' ? b : []));
}

/** A_j: RMSNorm, projections, rotation, causal attention (within the window), output projection, what it adds. */
function attentionBlock(model: ReferenceModel, x: Sequence, layer: number): Sequence {
  const { nHeads, nKvHeads, headDim, formula, layers } = model.config;
  const { window } = layers[layer]!;
  const scale = formula.attentionScale || 1 / Math.sqrt(headDim);
  const normed = rmsNorm(model, x, 'attention_norm', layer);
  const q = linear(model, normed, 'wq', 'bq', layer);
  const k = linear(model, normed, 'wk', 'bk', layer);
  const v = linear(model, normed, 'wv', 'bv', layer);
  q.forEach((vector, position) => prepareHeads(model, vector, position, 'q_norm', layer));
  k.forEach((vector, position) => prepareHeads(model, vector, position, 'k_norm', layer));
  for (const vector of [...k, ...v]) cacheHeads(model, vector);

  const mixed = x.map((_, position) => {
    const out = new Float64Array(nHeads * headDim);
    const first = window > 0 ? Math.max(0, position - window + 1) : 0;
    for (let head = 0; head < nHeads; head++) {
      const kvHead = Math.floor(head / (nHeads / nKvHeads));
      const query = q[position]!.subarray(head * headDim, (head + 1) * headDim);
      const scores = new Float64Array(position - first + 1);
      for (let past = first; past <= position; past++) {
        const product = dot(query, k[past]!.subarray(kvHead * headDim, (kvHead + 1) * headDim));
        scores[past - first] = capped(product * scale, formula.attentionCap);
      }
      const attention = logSoftmax(scores).map(Math.exp);
      for (let past = first; past <= position; past++) {
        const share = attention[past - first]!;
        const value = v[past]!;
        for (let d = 0; d < headDim; d++) out[head * headDim + d]! += share * value[kvHead * headDim + d]!;
      }
    }
    return out;
  });
  return added(model, linear(model, mixed, 'wo', 'bo', layer), 'attention_post_norm', layer);
}

/** What a block adds to the residual stream: what it computed, after its post-norm and times its multiplier. */
function added(model: ReferenceModel, computed: Sequence, postNorm: TensorRole, layer: number): Sequence {
  const { postNorms, residualScale } = model.config.formula;
  const normed = postNorms ? rmsNorm(model, computed, postNorm, layer) : computed;
  return normed.map((vector) => vector.map((value) => value * residualScale));
}

/** cap · tanh(value / cap); the value where there is no cap. */
function capped(value: number, cap: number): number {
  return cap > 0 ? cap * Math.tanh(value / cap) : value;
}

const ACTIVATIONS: Record<Formula['activation'], (gate: number) => number> = {
  silu: (gate) => gate / (1 + Math.exp(-gate)),
  gelu_tanh: (gate) => (gate / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (gate + 0.044715 * gate ** 3))),
};

/** M_j: RMSNorm, then down(act(gate) · up), what it adds. */
function mlpBlock(model: ReferenceModel, x: Sequence, layer: number): Sequence {
  const normed = rmsNorm(model, x, 'mlp_norm', layer);
  const gate = weight(model, 'w_gate', layer);
  const up = weight(model, 'w_up', layer);
  const down = weight(model, 'w_down', layer);
  const act = ACTIVATIONS[model.config.formula.activation];
  const computed = normed.map((vector) => {
    const h = rounded(model, vector);
    const u = multiply(up, h);
    const hidden = multiply(gate, h).map((g, i) => act(g) * u[i]!);
    return multiply(down, rounded(model, hidden));
  });
  return added(model, computed, 'mlp_post_norm', layer);
}

/** Per head, in place: RMSNorm where the model has one, then rotation of each pair by position · frequency. */
function prepareHeads(
  model: ReferenceModel,
  vector: Float64Array,
  position: number,
  norm: TensorRole,
  layer: number,
): void {
  const { headDim, normEps, ropeDim, ropeFrequencies, ropeInterleaved, ropeAttentionFactor, layers } = model.config;
  const { rope } = layers[layer]!;
  const gain = model.weights(norm, layer)?.values;
  for (let at = 0; at < vector.length; at += headDim) {
    const head = vector.subarray(at, at + headDim);
    if (gain) head.set(normalize(head, gain, model.config.formula.normOffset, normEps));
    if (rope < 0) continue;
    for (let i = 0; i < ropeDim / 2; i++) {
      const first = ropeInterleaved ? 2 * i : i;
      const second = ropeInterleaved ? 2 * i + 1 : i + ropeDim / 2;
      const angle = position * ropeFrequencies[rope * (ropeDim / 2) + i]!;
      const cos = Math.cos(angle) * ropeAttentionFactor;
      const sin = Math.sin(angle) * ropeAttentionFactor;
      const a = head[first]!;
      const b = head[second]!;
      head[first] = a * cos - b * sin;
      head[second] = a * sin + b * cos;
    }
  }
}

/** Per head, in place: what the cache gives back. */
function cacheHeads({ config: { headDim }, roundKv }: ReferenceModel, vector: Float64Array): void {
  if (!roundKv) return;
  for (let at = 0; at < vector.length; at += headDim) vector.set(roundKv(vector.slice(at, at + headDim)), at);
}

function rounded({ roundInput }: ReferenceModel, vector: Float64Array): Float64Array {
  return roundInput ? roundInput(vector) : vector;
}

function rmsNorm(model: ReferenceModel, x: Sequence, role: TensorRole, layer: number): Sequence {
  const gain = weight(model, role, layer).values;
  const { normEps, formula } = model.config;
  return x.map((vector) => normalize(vector, gain, formula.normOffset, normEps));
}

function normalize(vector: Float64Array, gain: Float64Array, offset: number, eps: number): Float64Array {
  const scale = 1 / Math.sqrt(dot(vector, vector) / vector.length + eps);
  return vector.map((value, i) => value * scale * (gain[i]! + offset));
}

function linear(model: ReferenceModel, x: Sequence, role: TensorRole, biasRole: TensorRole, layer: number): Sequence {
  const matrix = weight(model, role, layer);
  const bias = model.weights(biasRole, layer)?.values;
  return x.map((vector) => {
    const out = multiply(matrix, rounded(model, vector));
    return bias ? out.map((value, i) => value + bias[i]!) : out;
  });
}

function weight(model: ReferenceModel, role: TensorRole, layer = -1): Matrix {
  const matrix = model.weights(role, layer);
  if (!matrix) throw new Error(`the checkpoint has no ${role} for layer ${layer}`);
  return matrix;
}

function row(matrix: Matrix, index: number): Float64Array {
  return matrix.values.subarray(index * matrix.cols, (index + 1) * matrix.cols);
}

function multiply(matrix: Matrix, vector: Float64Array): Float64Array {
  const out = new Float64Array(matrix.rows);
  for (let r = 0; r < matrix.rows; r++) out[r] = dot(row(matrix, r), vector);
  return out;
}

function dot(a: Float64Array, b: Float64Array): number {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i]! * b[i]!;
  return total;
}

/** x plus the terms, position by position. */
function add(x: Sequence, ...terms: Sequence[]): Sequence {
  return x.map((vector, position) =>
    vector.map((value, i) => terms.reduce((total, term) => total + term[position]![i]!, value)),
  );
}

/** The terms alone; zeros of x's shape when there are none. */
function sum(x: Sequence, terms: Sequence[]): Sequence {
  return add(
    x.map((vector) => new Float64Array(vector.length)),
    ...terms,
  );
}
