import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { ARCHITECTURES, type ArchitectureRow, LLAMA_FORMULA } from '../../lib/checkpoint/architectures.js';
import { expectedTensors, type ExpectedTensor } from '../../lib/checkpoint/layout.js';
import { tensorName, type NameScheme } from '../../lib/checkpoint/names.js';
import { ropeFrequencies } from '../../lib/checkpoint/rope.js';
import type { Architecture, DType, ModelConfig, TensorRole } from '../../lib/checkpoint/types.js';
import { encode } from './encode.js';
import { array, f32, ggufFile, text, u32, type GgufEntry } from '../../tools/gguf/gguf_writer.mjs';
import { shapeMetadata } from '../../tools/gguf/shape_metadata.mjs';
import { randomNormal, seedOf } from './random.js';
import { safetensorsFile } from './safetensors_writer.js';

export interface RandomShape {
  dim: number;
  hiddenDim: number;
  nHeads: number;
  nKvHeads: number;
  /** dim / nHeads unless given. */
  headDim?: number;
  nLayers: number;
  vocabSize: number;
  contextLength: number;
  tied: boolean;
}

export interface RandomModelOptions {
  format: 'huggingface' | 'gguf';
  architecture?: Architecture;
  shape?: Partial<RandomShape>;
  /** The format of the matrices; vectors are the same in Hugging Face folders and F32 in GGUF files. */
  dtype?: DType;
  seed?: number;
  /** Biases on q, k, v and o (qwen2: always, on q, k and v). */
  attentionBias?: boolean;
  ropeTheta?: number;
  /** Files the tensors are spread over. */
  shards?: number;
  /** More entries of config.json; an undefined one takes the entry away. */
  config?: Record<string, unknown>;
  /** More GGUF metadata. */
  metadata?: Record<string, GgufEntry>;
  /** GGUF: a SentencePiece vocabulary of vocabSize (≥ 260) tokens, so that any engine can load the file. */
  vocabulary?: boolean;
  /** May write to the values of any tensor, before they are rounded. */
  change?: (role: TensorRole, layer: number, values: Float64Array) => void;
}

const DEFAULT_SHAPE: RandomShape = {
  dim: 32,
  hiddenDim: 64,
  nHeads: 4,
  nKvHeads: 2,
  nLayers: 3,
  vocabSize: 64,
  contextLength: 128,
  tied: false,
};
/** No size is a power of two; whole blocks only where a format needs them. */
export const ODD = { dim: 60, hiddenDim: 84, headDim: 10, nHeads: 6, nKvHeads: 3, nLayers: 5, vocabSize: 101 };
const GGML_TYPES: Record<DType, number> = { F32: 0, F16: 1, Q4_0: 2, Q8_0: 8, Q4_K: 12, Q5_K: 13, Q6_K: 14, BF16: 30 };

interface RandomTensor {
  role: TensorRole;
  layer: number;
  shape: number[];
  values: Float64Array;
}

type Resolved = Required<Omit<RandomModelOptions, 'shape'>> & { shape: Required<RandomShape> };

/**
 * Writes a small random model and returns the path to open it with: `target` is the folder to make, or the .gguf file.
 * Equal seed and shape give the same weights in either format, before rounding to `dtype`.
 */
export function writeRandomModel(target: string, options: RandomModelOptions): string {
  const resolved = resolve(options);
  const tensors = randomTensors(resolved);
  for (const { role, layer, values } of tensors) resolved.change(role, layer, values);
  return resolved.format === 'gguf'
    ? writeGguf(target, resolved, tensors)
    : writeHuggingFace(target, resolved, tensors);
}

function resolve(options: RandomModelOptions): Resolved {
  const shape = { ...DEFAULT_SHAPE, ...options.shape };
  const defaults = {
    architecture: 'llama',
    dtype: 'F32',
    seed: 1,
    attentionBias: false,
    ropeTheta: 10000,
    shards: 1,
    config: {},
    metadata: {},
    vocabulary: false,
    change: () => {},
  } as const;
  return { ...defaults, ...options, shape: { ...shape, headDim: shape.headDim ?? shape.dim / shape.nHeads } };
}

/** Entries of config.json that other formulas than LLaMA's take, and the same in a GGUF file. */
const FORMULAS: Partial<
  Record<Architecture, { config: Record<string, unknown>; metadata: Record<string, GgufEntry> }>
> = {
  mistral: { config: { sliding_window: null }, metadata: {} },
  gemma2: {
    config: { sliding_window: 7, attn_logit_softcapping: 2, final_logit_softcapping: 3 },
    metadata: {
      'attention.sliding_window': u32(7),
      attn_logit_softcapping: f32(2),
      final_logit_softcapping: f32(3),
    },
  },
  gemma3: { config: { sliding_window: 7 }, metadata: { 'attention.sliding_window': u32(7) } },
  granite: {
    config: { embedding_multiplier: 3, attention_multiplier: 0.5, residual_multiplier: 0.25, logits_scaling: 2 },
    metadata: {
      embedding_scale: f32(3),
      'attention.scale': f32(0.5),
      residual_scale: f32(0.25),
      logit_scale: f32(2),
    },
  },
};

function randomTensors({ architecture, shape, seed, attentionBias, ropeTheta }: Resolved): RandomTensor[] {
  const { qkNorm, biases, postNorms } = ARCHITECTURES[architecture];
  const config: ModelConfig = {
    architecture,
    ...shape,
    normEps: 1e-5,
    ropeFrequencies: ropeFrequencies(shape.headDim, ropeTheta, { type: 'none' }),
    ropeAttentionFactor: 1,
    ropeDim: shape.headDim,
    ropeInterleaved: false,
    formula: { ...LLAMA_FORMULA, postNorms },
    layers: Array.from({ length: shape.nLayers }, () => ({ window: 0, rope: 0 })),
    tiedEmbeddings: shape.tied,
  };
  const options = {
    qkvBias: attentionBias || biases === 'qkv',
    outputBias: attentionBias,
    qkNorm,
  };
  return expectedTensors(config, options).map((tensor) => ({ ...tensor, values: randomValues(tensor, seed) }));
}

/** Activations stay near 1, and queries and keys are large enough that attention is far from uniform. */
function randomValues({ role, layer, shape }: ExpectedTensor, seed: number): Float64Array {
  const normal = randomNormal(seedOf(seed, `${role} ${layer}`));
  const length = shape.reduce((product, size) => product * size, 1);
  const draw = (mean: number, deviation: number) => Float64Array.from({ length }, () => mean + deviation * normal());
  if (role.endsWith('norm')) return draw(1, 0.1);
  if (shape.length === 1) return draw(0, 0.2);
  return draw(0, (role === 'wq' || role === 'wk' ? 1.5 : 1) / Math.sqrt(shape[1]!));
}

function writeHuggingFace(folder: string, options: Resolved, tensors: readonly RandomTensor[]): string {
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, 'config.json'), JSON.stringify(configJson(options)));
  const row = ARCHITECTURES[options.architecture];
  const entries = namedTensors(withoutOffset(row, tensors), row.names.huggingFace).map(({ name, shape, values }) => ({
    name,
    dtype: options.dtype,
    shape,
    data: encode(options.dtype, values),
  }));
  if (options.shards === 1) {
    writeFileSync(path.join(folder, 'model.safetensors'), safetensorsFile(entries));
    return folder;
  }
  const weightMap: Record<string, string> = {};
  split(entries, options.shards).forEach((shard, i) => {
    const file = `model-${number5(i + 1)}-of-${number5(options.shards)}.safetensors`;
    writeFileSync(path.join(folder, file), safetensorsFile(shard));
    for (const { name } of shard) weightMap[name] = file;
  });
  writeFileSync(
    path.join(folder, 'model.safetensors.index.json'),
    JSON.stringify({ metadata: {}, weight_map: weightMap }),
  );
  return folder;
}

/** Tensors under a scheme's names, those that it keeps in one put together. */
function namedTensors(
  tensors: readonly RandomTensor[],
  scheme: NameScheme,
): Array<Pick<RandomTensor, 'shape' | 'values'> & { name: string }> {
  const named = new Map<string, Pick<RandomTensor, 'shape' | 'values'>>();
  for (const { role, layer, shape, values } of tensors) {
    const name = tensorName(scheme, role, layer);
    const before = named.get(name);
    const all = new Float64Array((before?.values.length ?? 0) + values.length);
    all.set(before?.values ?? []);
    all.set(values, all.length - values.length);
    named.set(name, { shape: before ? [before.shape[0]! + shape[0]!, shape[1]!] : shape, values: all });
  }
  return [...named].map(([name, tensor]) => ({ name, ...tensor }));
}

/** Hugging Face files hold what is added to the offset of norms. */
function withoutOffset({ normOffset }: ArchitectureRow, tensors: readonly RandomTensor[]): RandomTensor[] {
  return tensors.map((tensor) =>
    tensor.role.endsWith('norm') ? { ...tensor, values: tensor.values.map((value) => value - normOffset) } : tensor,
  );
}

function configJson({ architecture, shape, attentionBias, ropeTheta, config }: Resolved): Record<string, unknown> {
  const { modelType = architecture, activation, attentionScalar } = ARCHITECTURES[architecture];
  return {
    model_type: modelType,
    hidden_size: shape.dim,
    intermediate_size: shape.hiddenDim,
    num_attention_heads: shape.nHeads,
    num_key_value_heads: shape.nKvHeads,
    head_dim: shape.headDim,
    num_hidden_layers: shape.nLayers,
    vocab_size: shape.vocabSize,
    max_position_embeddings: shape.contextLength,
    rms_norm_eps: 1e-5,
    rope_theta: ropeTheta,
    tie_word_embeddings: shape.tied,
    attention_bias: attentionBias,
    hidden_act: { silu: 'silu', gelu_tanh: 'gelu_pytorch_tanh' }[activation],
    ...(attentionScalar !== undefined && { query_pre_attn_scalar: shape.headDim }),
    ...FORMULAS[architecture]?.config,
    ...config,
  };
}

function writeGguf(file: string, options: Resolved, tensors: readonly RandomTensor[]): string {
  mkdirSync(path.dirname(file), { recursive: true });
  const { dtype, shards } = options;
  const row = ARCHITECTURES[options.architecture];
  const { interleaved } = row.gguf ?? { interleaved: true };
  const ordered = tensors.map((tensor) =>
    interleaved ? { ...tensor, values: interleaveHeads(tensor, options.shape.headDim) } : tensor,
  );
  const entries = namedTensors(ordered, row.names.gguf).map(({ name, shape, values }) => {
    const type: DType = shape.length === 1 ? 'F32' : dtype;
    return { name, type: GGML_TYPES[type], shape, data: encode(type, values) };
  });
  const metadata = ggufMetadata(options, row.gguf ? options.architecture : 'llama');
  if (shards === 1) {
    writeFileSync(file, ggufFile({ metadata, tensors: entries }));
    return file;
  }
  const files = split(entries, shards).map((part, i) => {
    const partFile = file.replace(/\.gguf$/, `-${number5(i + 1)}-of-${number5(shards)}.gguf`);
    const splitKeys: Record<string, GgufEntry> = {
      'split.no': { type: 'u16', value: i },
      'split.count': { type: 'u16', value: shards },
      'split.tensors.count': { type: 'i32', value: entries.length },
    };
    writeFileSync(partFile, ggufFile({ metadata: i === 0 ? { ...metadata, ...splitKeys } : splitKeys, tensors: part }));
    return partFile;
  });
  return files[0]!;
}

function ggufMetadata(
  { shape, ropeTheta, metadata, vocabulary, ...options }: Resolved,
  architecture: string,
): Record<string, GgufEntry> {
  return {
    'general.architecture': text(architecture),
    'general.name': text('random'),
    ...shapeMetadata(architecture, { ...shape, normEps: 1e-5 }),
    [`${architecture}.rope.freq_base`]: f32(ropeTheta),
    ...Object.fromEntries(
      Object.entries(FORMULAS[options.architecture]?.metadata ?? {}).map(([key, entry]) => [
        `${architecture}.${key}`,
        entry,
      ]),
    ),
    ...(vocabulary && sentencePieceVocabulary(shape.vocabSize)),
    ...metadata,
  };
}

/** Three special tokens, the 256 bytes, then ▁ and words made of letters. */
function sentencePieceVocabulary(size: number): Record<string, GgufEntry> {
  const [unknown, control, normal, byte] = [2, 3, 1, 6];
  const tokens = ['<unk>', '<s>', '</s>'];
  const types = [unknown, control, control];
  for (let i = 0; i < 256; i++) {
    tokens.push(`<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`);
    types.push(byte);
  }
  for (let i = 0; tokens.length < size; i++) {
    tokens.push(i === 0 ? '▁' : letters(i - 1));
    types.push(normal);
  }
  return {
    'tokenizer.ggml.model': text('llama'),
    'tokenizer.ggml.tokens': array('string', tokens),
    'tokenizer.ggml.scores': array(
      'f32',
      tokens.map((_, i) => (i < 259 ? 0 : 258 - i)),
    ),
    'tokenizer.ggml.token_type': array('i32', types),
    'tokenizer.ggml.unknown_token_id': u32(0),
    'tokenizer.ggml.bos_token_id': u32(1),
    'tokenizer.ggml.eos_token_id': u32(2),
  };
}

/** a, b, …, z, aa, ab, … */
function letters(index: number): string {
  const last = String.fromCharCode(97 + (index % 26));
  return index < 26 ? last : letters(Math.floor(index / 26) - 1) + last;
}

/** Rows of q and k in the order llama GGUF files keep them: the pairs that are rotated together stand side by side. */
function interleaveHeads({ role, shape, values }: RandomTensor, headDim: number): Float64Array {
  if (!['wq', 'wk', 'bq', 'bk'].includes(role)) return values;
  const cols = shape[1] ?? 1;
  const out = new Float64Array(values.length);
  for (let row = 0; row < shape[0]!; row++) {
    const i = row % headDim;
    const source = row - i + (i % 2) * (headDim / 2) + (i >> 1);
    out.set(values.subarray(source * cols, (source + 1) * cols), row * cols);
  }
  return out;
}

/** Runs of nearly equal length, none empty while there are enough elements. */
function split<T>(items: readonly T[], parts: number): T[][] {
  const at = (i: number) => Math.floor((i * items.length) / parts);
  return Array.from({ length: parts }, (_, i) => items.slice(at(i), at(i + 1)));
}

function number5(value: number): string {
  return String(value).padStart(5, '0');
}
