import { CqilError } from '../errors.js';
import { LLAMA_FORMULA } from './architectures.js';
import { expectedTensors, rowsAndCols, tensorBytes } from './layout.js';
import { ropeFrequencies } from './rope.js';
import { DTYPE_BLOCK, type Checkpoint, type DType, type ModelConfig, type TensorInfo } from './types.js';

type Shape = Pick<
  ModelConfig,
  'nLayers' | 'dim' | 'hiddenDim' | 'nHeads' | 'nKvHeads' | 'vocabSize' | 'contextLength' | 'tiedEmbeddings'
>;

/** Shapes of published models, to measure speed without downloading them. Heads are dim / nHeads wide. */
const SHAPES = {
  'smollm2-135m': {
    nLayers: 30,
    dim: 576,
    hiddenDim: 1536,
    nHeads: 9,
    nKvHeads: 3,
    vocabSize: 49152,
    contextLength: 8192,
    tiedEmbeddings: true,
  },
  'llama-160m': {
    nLayers: 12,
    dim: 768,
    hiddenDim: 3072,
    nHeads: 12,
    nKvHeads: 12,
    vocabSize: 32000,
    contextLength: 2048,
    tiedEmbeddings: false,
  },
  'tinyllama-1.1b': {
    nLayers: 22,
    dim: 2048,
    hiddenDim: 5632,
    nHeads: 32,
    nKvHeads: 4,
    vocabSize: 32000,
    contextLength: 2048,
    tiedEmbeddings: false,
  },
  'llama-7b': {
    nLayers: 32,
    dim: 4096,
    hiddenDim: 11008,
    nHeads: 32,
    nKvHeads: 32,
    vocabSize: 32000,
    contextLength: 2048,
    tiedEmbeddings: false,
  },
  'llama-13b': {
    nLayers: 40,
    dim: 5120,
    hiddenDim: 13824,
    nHeads: 40,
    nKvHeads: 40,
    vocabSize: 32000,
    contextLength: 2048,
    tiedEmbeddings: false,
  },
  'llama-33b': {
    nLayers: 60,
    dim: 6656,
    hiddenDim: 17920,
    nHeads: 52,
    nKvHeads: 52,
    vocabSize: 32000,
    contextLength: 2048,
    tiedEmbeddings: false,
  },
} satisfies Record<string, Shape>;

/** Names that `syntheticCheckpoint` takes. */
export const SYNTHETIC_SHAPES: readonly string[] = Object.keys(SHAPES);

/**
 * A model of a published shape without a file: `files` is empty and every offset 0, for the engine to fill with random
 * weights of type `dtype` (vectors in F32). Throws INVALID_ARGUMENT for an unknown shape or a type its rows cannot
 * have.
 */
export function syntheticCheckpoint(shapeName: string, dtype: DType): Checkpoint {
  const config = configOf(shapeNamed(shapeName, dtype));
  return {
    format: 'huggingface',
    path: `synthetic:${shapeName}`,
    config,
    files: [],
    tensors: randomTensors(config, dtype),
    readTokenizer: async () => ({ kind: 'none', reason: 'Random weights have no tokenizer.' }),
    readEosTokenIds: async () => [],
  };
}

function shapeNamed(name: string, dtype: DType): Shape {
  if (!Object.hasOwn(SHAPES, name))
    throw new CqilError(
      'INVALID_ARGUMENT',
      `There is no synthetic shape "${name}"; one of ${SYNTHETIC_SHAPES.join(', ')} is expected.`,
    );
  const shape: Shape = SHAPES[name as keyof typeof SHAPES];
  const block = DTYPE_BLOCK[dtype];
  if (shape.dim % block.weights !== 0 || shape.hiddenDim % block.weights !== 0) {
    throw new CqilError(
      'INVALID_ARGUMENT',
      `Rows of ${name} (${shape.dim} and ${shape.hiddenDim} weights) cannot be ${dtype}, which takes ` +
        `multiples of ${block.weights}.`,
    );
  }
  return shape;
}

function configOf(shape: Shape): ModelConfig {
  const headDim = shape.dim / shape.nHeads;
  return {
    architecture: 'llama',
    ...shape,
    headDim,
    normEps: 1e-5,
    ropeDim: headDim,
    ropeFrequencies: ropeFrequencies(headDim, 10000, { type: 'none' }),
    ropeAttentionFactor: 1,
    ropeInterleaved: false,
    formula: LLAMA_FORMULA,
    layers: Array.from({ length: shape.nLayers }, () => ({ window: 0, rope: 0 })),
  };
}

function randomTensors(config: ModelConfig, dtype: DType): TensorInfo[] {
  return expectedTensors(config, { qkvBias: false, outputBias: false, qkNorm: false }).map(({ role, layer, shape }) => {
    const [rows, cols] = rowsAndCols(shape);
    const type: DType = shape.length === 1 ? 'F32' : dtype;
    const byteLength = tensorBytes(type, rows, cols);
    const name = layer < 0 ? role : `${layer}.${role}`;
    return { name, role, layer, dtype: type, rows, cols, file: 0, offset: 0, byteLength };
  });
}
