import { CqilError } from '../errors.js';
import { DTYPE_BLOCK, type DType, type ModelConfig, type TensorRole } from './types.js';

/** Which of the optional tensors every layer has. */
export interface LayerOptions {
  /** bq, bk, bv */
  qkvBias: boolean;
  /** bo */
  outputBias: boolean;
  /** q_norm, k_norm */
  qkNorm: boolean;
}

/** One tensor a model must have. */
export interface ExpectedTensor {
  role: TensorRole;
  layer: number;
  /** [rows, cols] of a matrix, [cols] of a vector. */
  shape: number[];
}

/** Every tensor a model of this shape has, each once, in the order of the forward pass. */
export function expectedTensors(config: ModelConfig, options: LayerOptions): ExpectedTensor[] {
  const { dim, hiddenDim, vocabSize } = config;
  const qDim = config.nHeads * config.headDim;
  const kvDim = config.nKvHeads * config.headDim;
  const layerShapes: Array<[TensorRole, number[]]> = [
    ['attention_norm', [dim]],
    ['wq', [qDim, dim]],
    ['wk', [kvDim, dim]],
    ['wv', [kvDim, dim]],
    ['wo', [dim, qDim]],
    ['mlp_norm', [dim]],
    ['w_gate', [hiddenDim, dim]],
    ['w_up', [hiddenDim, dim]],
    ['w_down', [dim, hiddenDim]],
  ];
  if (options.qkvBias) layerShapes.push(['bq', [qDim]], ['bk', [kvDim]], ['bv', [kvDim]]);
  if (options.outputBias) layerShapes.push(['bo', [dim]]);
  if (options.qkNorm) layerShapes.push(['q_norm', [config.headDim]], ['k_norm', [config.headDim]]);
  if (config.formula.postNorms) layerShapes.push(['attention_post_norm', [dim]], ['mlp_post_norm', [dim]]);

  const tensors: ExpectedTensor[] = [{ role: 'token_embedding', layer: -1, shape: [vocabSize, dim] }];
  for (let layer = 0; layer < config.nLayers; layer++) {
    for (const [role, shape] of layerShapes) tensors.push({ role, layer, shape });
  }
  tensors.push({ role: 'output_norm', layer: -1, shape: [dim] });
  if (!config.tiedEmbeddings) tensors.push({ role: 'output', layer: -1, shape: [vocabSize, dim] });
  return tensors;
}

/** A matrix's rows and columns; a vector is one row. */
export function rowsAndCols(shape: readonly number[]): [rows: number, cols: number] {
  return shape.length === 1 ? [1, shape[0]!] : [shape[0]!, shape[1]!];
}

/** Bytes of a tensor whose rows are whole numbers of blocks. */
export function tensorBytes(dtype: DType, rows: number, cols: number): number {
  const { weights, bytes } = DTYPE_BLOCK[dtype];
  return rows * (cols / weights) * bytes;
}

/** Largest value of each dimension: far above any model made, and low enough that no product of them leaves 2^53. */
export const LIMITS = {
  dim: { min: 1, max: 2 ** 18 },
  hiddenDim: { min: 1, max: 2 ** 20 },
  headDim: { min: 2, max: 2 ** 13 },
  nHeads: { min: 1, max: 2 ** 12 },
  nLayers: { min: 1, max: 2 ** 12 },
  vocabSize: { min: 1, max: 2 ** 24 },
  contextLength: { min: 1, max: 2 ** 30 },
  normEps: { min: 1e-20, max: 1 },
  ropeTheta: { min: 1 + 1e-6, max: 1e15 },
  ropeFactor: { min: 1e-6, max: 1e6 },
  ropeBeta: { min: 0, max: 1e6 },
  scale: { min: 1e-6, max: 1e6 },
  cap: { min: 1e-2, max: 1e6 },
} as const;

/** Checks what single values cannot show. `source` begins the sentence of the INVALID_CHECKPOINT thrown. */
export function checkConfig(config: ModelConfig, source: string): void {
  const invalid = (problem: string) => new CqilError('INVALID_CHECKPOINT', `${source} ${problem}.`);
  if (config.headDim % 2 !== 0) throw invalid(`has a head dimension of ${config.headDim}; an even number is expected`);
  if (config.nHeads % config.nKvHeads !== 0) {
    throw invalid(`has ${config.nKvHeads} key/value heads for ${config.nHeads} heads; a divisor is expected`);
  }
  if (!config.ropeFrequencies.every(Number.isFinite) || !Number.isFinite(config.ropeAttentionFactor)) {
    throw invalid('has rotary parameters whose frequencies are not finite');
  }
}
