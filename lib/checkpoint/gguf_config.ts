import type { ConfiguredModel } from './config.js';
import { Fields, show } from './fields.js';
import type { GgufFile } from './gguf.js';
import { checkConfig, LIMITS } from './layout.js';
import { ropeFrequencies, yarnAttentionFactor, type RopeScaling } from './rope.js';
import type { Architecture, GgufValue, ModelConfig } from './types.js';

/** Architectures as GGUF names them; mistral files are llama here. `interleaved`: pairs (2i, 2i+1) are rotated. */
const ARCHITECTURES: Record<string, { architecture: Architecture; interleaved: boolean; qkNorm: boolean }> = {
  llama: { architecture: 'llama', interleaved: true, qkNorm: false },
  qwen2: { architecture: 'qwen2', interleaved: false, qkNorm: false },
  qwen3: { architecture: 'qwen3', interleaved: false, qkNorm: true },
};

/** Keys that, unless zero, would change the arithmetic beyond what the engine computes. */
const MUST_BE_ZERO = [
  'expert_count',
  'attention.scale',
  'attention.clamp_kqv',
  'attention.max_alibi_bias',
  'attn_logit_softcapping',
  'final_logit_softcapping',
  'logit_scale',
  'embedding_scale',
  'residual_scale',
  'rope.scaling.yarn_log_multiplier',
];

/** Keys of llama.cpp's overrides of YaRN, and the values that override nothing. */
const YARN_DEFAULTS: Record<string, number[]> = {
  'rope.scaling.yarn_ext_factor': [-1, 1],
  'rope.scaling.yarn_attn_factor': [1],
};

/**
 * The shape that a GGUF file's metadata and tensor table describe, read as llama.cpp does. `ropeDivisors` holds the
 * tensor rope_freqs.weight where there is one. Throws INVALID_CHECKPOINT or UNSUPPORTED_MODEL; `source` names the file
 * in messages.
 */
export function ggufConfig(
  gguf: Pick<GgufFile, 'metadata' | 'tensors'>,
  ropeDivisors: Float32Array | undefined,
  source: string,
): ConfiguredModel {
  const general = new Fields((key) => gguf.metadata.get(key), source);
  const kind = general.string('general.type', 'model');
  if (kind !== 'model')
    throw general.unsupported(
      'is a GGUF file of type ' +
        `${show(kind)}${kind === 'adapter' ? '; adapters are supported as PEFT folders' : ''}; a whole model is ` +
        'expected',
    );
  const name = general.string('general.architecture');
  const family = Object.hasOwn(ARCHITECTURES, name) ? ARCHITECTURES[name]! : undefined;
  if (!family)
    throw general.unsupported(
      `holds a model of architecture ${show(name)}; supported are ${Object.keys(ARCHITECTURES).join(', ')}`,
    );
  const fields = new Fields((key) => gguf.metadata.get(`${name}.${key}`), source);
  refuseUnsupported(fields);

  const dim = fields.integer('embedding_length', LIMITS.dim);
  const nLayers = fields.integer('block_count', LIMITS.nLayers);
  const nHeads = perLayer(fields, 'attention.head_count', nLayers);
  const headDim = readHeadDim(fields, dim, nHeads);
  const contextLength = fields.integer('context_length', LIMITS.contextLength);
  const shapeOf = new Map(gguf.tensors.map((tensor) => [tensor.name, tensor.shape]));
  const config: ModelConfig = {
    architecture: family.architecture,
    dim,
    hiddenDim: perLayer(fields, 'feed_forward_length', nLayers),
    headDim,
    nHeads,
    nKvHeads: fields.has('attention.head_count_kv') ? perLayer(fields, 'attention.head_count_kv', nLayers) : nHeads,
    nLayers,
    vocabSize: readVocabSize(general, gguf.metadata, shapeOf.get('token_embd.weight')),
    contextLength,
    normEps: fields.number('attention.layer_norm_rms_epsilon', LIMITS.normEps),
    ...readRope(fields, headDim, contextLength, ropeDivisors),
    ropeInterleaved: family.interleaved,
    slidingWindow:
      family.architecture === 'llama'
        ? fields.integer('attention.sliding_window', { min: 0, max: LIMITS.contextLength.max }, 0)
        : 0,
    tiedEmbeddings: !shapeOf.has('output.weight'),
  };
  checkConfig(config, source);
  // Metadata does not say whether there are biases; where layer 0 has them, every layer must.
  const options = {
    qkvBias: shapeOf.has('blk.0.attn_q.bias'),
    outputBias: shapeOf.has('blk.0.attn_output.bias'),
    qkNorm: family.qkNorm,
  };
  return { config, options };
}

function refuseUnsupported(fields: Fields): void {
  for (const key of MUST_BE_ZERO) {
    const value = fields.raw(key);
    if (value !== undefined && value !== 0)
      throw fields.unsupported(`has "${key}": ${show(value)}, which this version does not compute`);
  }
  for (const [key, values] of Object.entries(YARN_DEFAULTS)) {
    const value = fields.raw(key);
    if (value !== undefined && !values.includes(value as number))
      throw fields.unsupported(`has "${key}": ${show(value)}, which this version does not compute`);
  }
}

/** A size that may be written once or once per layer; it must be the same everywhere. */
function perLayer(fields: Fields, key: string, nLayers: number): number {
  const range = key === 'feed_forward_length' ? LIMITS.hiddenDim : LIMITS.nHeads;
  const value = fields.raw(key);
  if (!Array.isArray(value) && !ArrayBuffer.isView(value)) return fields.integer(key, range);
  const values = Array.from(value as ArrayLike<unknown>);
  if (values.length !== nLayers) throw fields.invalid(`has ${values.length} values of "${key}" for ${nLayers} layers`);
  if (values.some((size) => size !== values[0]))
    throw fields.unsupported(`has a different "${key}" from layer to layer; one for all is supported`);
  return new Fields(() => values[0], `an element of ${key}`).integer(key, range);
}

function readHeadDim(fields: Fields, dim: number, nHeads: number): number {
  if (!fields.has('attention.key_length') && dim % nHeads !== 0) {
    throw fields.invalid(
      `has "embedding_length": ${dim}, no multiple of "attention.head_count": ${nHeads}, and no "attention.key_length"`,
    );
  }
  const headDim = fields.integer('attention.key_length', LIMITS.headDim, dim / nHeads);
  for (const key of ['attention.value_length', 'rope.dimension_count']) {
    const other = fields.integer(key, LIMITS.headDim, headDim);
    if (other !== headDim)
      throw fields.unsupported(`has heads of width ${headDim} but "${key}": ${other}; the same width is supported`);
  }
  return headDim;
}

/**
 * The embedding's rows. The vocabulary must have as many tokens; the key "vocab_size" is not always kept up to date.
 */
function readVocabSize(
  general: Fields,
  metadata: ReadonlyMap<string, GgufValue>,
  embedding: number[] | undefined,
): number {
  if (embedding?.length !== 2) throw general.invalid('has no matrix "token_embd.weight"');
  const vocabSize = new Fields(() => embedding[0], 'token_embd.weight').integer('rows', LIMITS.vocabSize);
  const tokens = metadata.get('tokenizer.ggml.tokens');
  if (typeof tokens === 'object' && tokens.length !== vocabSize) {
    throw general.invalid(`has ${tokens.length} tokens in its vocabulary but embeddings for ${vocabSize}`);
  }
  return vocabSize;
}

function readRope(
  fields: Fields,
  headDim: number,
  contextLength: number,
  divisors: Float32Array | undefined,
): Pick<ModelConfig, 'ropeFrequencies' | 'ropeAttentionFactor'> {
  const theta = fields.number('rope.freq_base', LIMITS.ropeTheta, 10000);
  if (
    divisors &&
    (divisors.length !== headDim / 2 || !divisors.every((divisor) => divisor > 0 && Number.isFinite(divisor)))
  ) {
    throw fields.invalid(`has a tensor "rope_freqs.weight" that is not ${headDim / 2} positive numbers`);
  }
  const scaling = readScaling(fields, contextLength);
  const attentionFactor = fields.number('rope.scaling.attn_factor', LIMITS.ropeFactor, 1);
  return {
    ropeFrequencies: ropeFrequencies(headDim, theta, scaling, divisors),
    ropeAttentionFactor: attentionFactor * (scaling.type === 'yarn' ? yarnAttentionFactor(scaling.factor) : 1),
  };
}

function readScaling(fields: Fields, contextLength: number): RopeScaling {
  const type = fields.string('rope.scaling.type', 'linear');
  const { min, max } = LIMITS.ropeFactor;
  // A factor of zero means none, and "scale_linear" is the older name.
  const factor =
    fields.number('rope.scaling.factor', { min: 0, max }, 0) ||
    fields.number('rope.scale_linear', { min: 0, max }, 0) ||
    1;
  if (factor < min) throw fields.invalid(`has a rotary scaling factor of ${factor}; at least ${min} is expected`);
  switch (type) {
    case 'none':
      return { type };
    case 'linear':
      return { type, factor };
    case 'yarn':
      return {
        type,
        factor,
        betaFast: fields.number('rope.scaling.yarn_beta_fast', LIMITS.ropeFactor, 32),
        betaSlow: fields.number('rope.scaling.yarn_beta_slow', LIMITS.ropeFactor, 1),
        originalContextLength: fields.integer(
          'rope.scaling.original_context_length',
          LIMITS.contextLength,
          contextLength,
        ),
        truncate: true,
      };
    default:
      throw fields.unsupported(`asks for rotary scaling of type ${show(type)}; supported are none, linear, yarn`);
  }
}
