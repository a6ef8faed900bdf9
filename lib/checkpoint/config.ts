import { Fields, show } from './fields.js';
import { checkConfig, LIMITS, type LayerOptions } from './layout.js';
import { ropeFrequencies, yarnAttentionFactor, type RopeScaling } from './rope.js';
import type { Architecture, ModelConfig } from './types.js';

/** A model's shape and which optional tensors its layers have. */
export interface ConfiguredModel {
  config: ModelConfig;
  options: LayerOptions;
}

/** What transformers assumes where config.json is silent and the architectures differ; no `nKvHeads` means nHeads. */
const DEFAULTS: Record<
  Architecture,
  { contextLength: number; nKvHeads?: number; headDim?: number; slidingWindow: number }
> = {
  llama: { contextLength: 2048, slidingWindow: 0 },
  mistral: { contextLength: 131072, nKvHeads: 8, slidingWindow: 4096 },
  qwen2: { contextLength: 32768, nKvHeads: 32, slidingWindow: 0 },
  qwen3: { contextLength: 32768, nKvHeads: 32, headDim: 128, slidingWindow: 0 },
};

/**
 * Reads a Hugging Face config.json the way transformers does for these architectures, its defaults included, and
 * refuses what would change the arithmetic beyond what the engine computes. `source` names the file in messages.
 */
export function parseConfigJson(json: unknown, source: string): ConfiguredModel {
  const fields = Fields.ofJson(json, source);
  const architecture = readArchitecture(fields);
  refuseUnsupported(fields, architecture);
  const defaults = DEFAULTS[architecture];

  const dim = fields.integer('hidden_size', LIMITS.dim);
  const nHeads = fields.integer('num_attention_heads', LIMITS.nHeads);
  const headDim = readHeadDim(fields, dim, nHeads, defaults.headDim);
  const contextLength = fields.integer('max_position_embeddings', LIMITS.contextLength, defaults.contextLength);
  const attentionBias =
    (architecture === 'llama' || architecture === 'qwen3') && fields.boolean('attention_bias', false);
  const config: ModelConfig = {
    architecture,
    dim,
    hiddenDim: fields.integer('intermediate_size', LIMITS.hiddenDim),
    headDim,
    nHeads,
    nKvHeads: fields.integer(
      'num_key_value_heads',
      LIMITS.nHeads,
      isNull(json, 'num_key_value_heads') ? nHeads : (defaults.nKvHeads ?? nHeads),
    ),
    nLayers: fields.integer('num_hidden_layers', LIMITS.nLayers),
    vocabSize: fields.integer('vocab_size', LIMITS.vocabSize),
    contextLength,
    normEps: fields.number('rms_norm_eps', LIMITS.normEps, 1e-6),
    ...readRope(fields, headDim, contextLength),
    ropeInterleaved: false,
    slidingWindow:
      architecture === 'mistral' && !isNull(json, 'sliding_window')
        ? fields.integer('sliding_window', LIMITS.contextLength, defaults.slidingWindow)
        : 0,
    tiedEmbeddings: fields.boolean('tie_word_embeddings', false),
  };
  checkConfig(config, source);
  return {
    config,
    options: {
      qkvBias: attentionBias || architecture === 'qwen2',
      outputBias: attentionBias,
      qkNorm: architecture === 'qwen3',
    },
  };
}

function readArchitecture(fields: Fields): Architecture {
  const type = fields.string('model_type');
  if (!Object.hasOwn(DEFAULTS, type))
    throw fields.unsupported(
      `describes a model of type ${show(type)}; supported are ${Object.keys(DEFAULTS).join(', ')}`,
    );
  return type as Architecture;
}

function refuseUnsupported(fields: Fields, architecture: Architecture): void {
  for (const key of ['quantization', 'quantization_config']) {
    const quantization = fields.object(key);
    if (!quantization) continue;
    // MLX writes both, and names no method.
    const method = quantization.has('quant_method')
      ? show(quantization.raw('quant_method'))
      : quantization.has('group_size')
        ? 'MLX'
        : 'an unnamed method';
    throw fields.unsupported(
      `says the weights are quantized with ${method}; F32, F16 and BF16 are supported in this format, and ` +
        'quantized weights as .gguf',
    );
  }
  const activation = fields.string('hidden_act', 'silu');
  if (activation !== 'silu' && activation !== 'swish')
    throw fields.unsupported(`has "hidden_act": ${show(activation)}; "silu" is supported`);
  if (architecture === 'llama' && fields.boolean('mlp_bias', false))
    throw fields.unsupported('has "mlp_bias": true; MLPs without bias are supported');
  if (architecture.startsWith('qwen') && fields.boolean('use_sliding_window', false)) {
    throw fields.unsupported(
      'has "use_sliding_window": true; for this architecture full attention in every layer is supported',
    );
  }
  const layerTypes = fields.raw('layer_types');
  if (Array.isArray(layerTypes) && layerTypes.some((type) => type !== layerTypes[0])) {
    throw fields.unsupported('has different "layer_types"; one kind of attention for all layers is supported');
  }
}

function readHeadDim(fields: Fields, dim: number, nHeads: number, fallback: number | undefined): number {
  if (fields.has('head_dim') || fallback !== undefined) return fields.integer('head_dim', LIMITS.headDim, fallback);
  if (dim % nHeads !== 0)
    throw fields.invalid(
      `has "hidden_size": ${dim}, no multiple of "num_attention_heads": ${nHeads}, and no "head_dim"`,
    );
  return dim / nHeads;
}

/** A null switches off what an absent key leaves at its default. */
function isNull(json: unknown, key: string): boolean {
  return (json as Record<string, unknown>)[key] === null;
}

/**
 * transformers 5 keeps all rotary parameters in "rope_parameters"; before, "rope_theta" stood alone beside
 * "rope_scaling".
 */
function readRope(
  fields: Fields,
  headDim: number,
  contextLength: number,
): Pick<ModelConfig, 'ropeFrequencies' | 'ropeAttentionFactor'> {
  const rope = fields.object('rope_scaling') ?? fields.object('rope_parameters') ?? Fields.ofJson({}, 'rope_scaling');
  const theta = rope.has('rope_theta')
    ? rope.number('rope_theta', LIMITS.ropeTheta)
    : fields.number('rope_theta', LIMITS.ropeTheta, 10000);
  const rotated = (rope.has('partial_rotary_factor') ? rope : fields).number(
    'partial_rotary_factor',
    { min: 0, max: 1 },
    1,
  );
  if (rotated !== 1)
    throw fields.unsupported(`has "partial_rotary_factor": ${rotated}; heads that are rotated whole are supported`);
  const trainedLength = fields.integer(
    'original_max_position_embeddings',
    LIMITS.contextLength,
    rope.integer('original_max_position_embeddings', LIMITS.contextLength, contextLength),
  );
  const scaling = readScaling(rope, contextLength, trainedLength);
  return {
    ropeFrequencies: ropeFrequencies(headDim, theta, scaling),
    ropeAttentionFactor: scaling.type === 'yarn' ? readAttentionFactor(rope, scaling.factor) : 1,
  };
}

function readScaling(rope: Fields, contextLength: number, originalContextLength: number): RopeScaling {
  const type = rope.string('rope_type', rope.string('type', 'default'));
  switch (type) {
    case 'default':
    case 'none':
      return { type: 'none' };
    case 'linear':
      return { type, factor: rope.number('factor', LIMITS.ropeFactor) };
    case 'llama3': {
      const lowFreqFactor = rope.number('low_freq_factor', LIMITS.ropeFactor);
      const highFreqFactor = rope.number('high_freq_factor', LIMITS.ropeFactor);
      if (highFreqFactor <= lowFreqFactor)
        throw rope.invalid(`has "high_freq_factor": ${highFreqFactor}, not above "low_freq_factor": ${lowFreqFactor}`);
      return {
        type,
        factor: rope.number('factor', LIMITS.ropeFactor),
        lowFreqFactor,
        highFreqFactor,
        originalContextLength,
      };
    }
    case 'yarn':
      return {
        type,
        factor: rope.number('factor', LIMITS.ropeFactor, contextLength / originalContextLength),
        // Zero means the default, as in transformers.
        betaFast: rope.number('beta_fast', LIMITS.ropeBeta, 0) || 32,
        betaSlow: rope.number('beta_slow', LIMITS.ropeBeta, 0) || 1,
        originalContextLength,
        truncate: rope.boolean('truncate', true),
      };
    default:
      throw rope.unsupported(
        `asks for rotary scaling of type ${show(type)}; supported are default, linear, llama3, yarn`,
      );
  }
}

function readAttentionFactor(rope: Fields, factor: number): number {
  if (rope.has('attention_factor')) return rope.number('attention_factor', LIMITS.ropeFactor);
  const mscale = rope.number('mscale', LIMITS.ropeBeta, 0);
  const mscaleAllDim = rope.number('mscale_all_dim', LIMITS.ropeBeta, 0);
  if (mscale && mscaleAllDim) return yarnAttentionFactor(factor, mscale) / yarnAttentionFactor(factor, mscaleAllDim);
  return yarnAttentionFactor(factor);
}
