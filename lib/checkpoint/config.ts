import {
  ARCHITECTURES,
  type ArchitectureRow,
  HUGGINGFACE_ARCHITECTURES,
  LLAMA_FORMULA,
  MULTIMODAL_ARCHITECTURES,
  type Windows,
} from './architectures.js';
import { readRope, ropeOfLayer } from './config_rope.js';
import { Fields, show } from './fields.js';
import { checkConfig, LIMITS, type LayerOptions } from './layout.js';
import type { Architecture, Formula, ModelConfig } from './types.js';

/** A model's shape, which optional tensors its layers have, and how their names are to be read. */
export interface ConfiguredModel {
  config: ModelConfig;
  options: LayerOptions;
  names: ArchitectureRow['names'];
}

/**
 * Reads a Hugging Face config.json the way transformers does for these architectures, its defaults included, and
 * refuses what would change the arithmetic beyond what the engine computes. `source` names the file in messages.
 */
export function parseConfigJson(json: unknown, source: string): ConfiguredModel {
  const fields = Fields.ofJson(textPart(json), source);
  const name = readArchitecture(fields);
  const architecture = ARCHITECTURES[name];
  refuseUnsupported(fields, architecture);
  const { defaults } = architecture;

  const dim = fields.integer('hidden_size', LIMITS.dim);
  const nHeads = fields.integer('num_attention_heads', LIMITS.nHeads);
  const headDim = readHeadDim(fields, dim, nHeads, defaults.headDim);
  const nLayers = fields.integer('num_hidden_layers', LIMITS.nLayers);
  const attentionBias = architecture.biases === 'attention_bias' && fields.boolean('attention_bias', false);
  const windows = readWindows(fields, architecture.windows, nLayers);
  const config: ModelConfig = {
    architecture: name,
    dim,
    hiddenDim: fields.integer('intermediate_size', LIMITS.hiddenDim),
    headDim,
    nHeads,
    nKvHeads: fields.integer(
      'num_key_value_heads',
      LIMITS.nHeads,
      fields.isNull('num_key_value_heads') ? nHeads : (defaults.nKvHeads ?? nHeads),
    ),
    nLayers,
    vocabSize: fields.integer('vocab_size', LIMITS.vocabSize),
    normEps: fields.number('rms_norm_eps', LIMITS.normEps, defaults.normEps),
    ...readRope(
      fields,
      architecture,
      headDim,
      fields.integer('max_position_embeddings', LIMITS.contextLength, defaults.contextLength),
    ),
    ropeInterleaved: false,
    formula: readFormula(fields, architecture, dim),
    layers: windows.map((window, layer) => ({ window, rope: ropeOfLayer(layer, window, fields, architecture) })),
    tiedEmbeddings: fields.boolean('tie_word_embeddings', defaults.tied),
  };
  checkConfig(config, source);
  return {
    config,
    options: {
      qkvBias: attentionBias || architecture.biases === 'qkv',
      outputBias: attentionBias,
      qkNorm: architecture.qkNorm,
    },
    names: architecture.names,
  };
}

/**
 * The configuration of the model of text in one that also takes images: "text_config", with the defaults of its family
 * where that is silent. Any other configuration as it is.
 */
function textPart(json: unknown): unknown {
  const { model_type: type, text_config: text, ...whole } = Object(json) as Record<string, unknown>;
  if (typeof type !== 'string' || typeof text !== 'object' || text === null) return json;
  const name = MULTIMODAL_ARCHITECTURES.get(type);
  if (!name) return json;
  const { modelType, textDefaults } = ARCHITECTURES[name];
  const { quantization, quantization_config } = whole;
  return { ...textDefaults, model_type: modelType, quantization, quantization_config, ...text };
}

function readArchitecture(fields: Fields): Architecture {
  const type = fields.string('model_type');
  const name = HUGGINGFACE_ARCHITECTURES.get(type);
  if (name) return name;
  throw fields.unsupported(
    `describes a model of type ${show(type)}; supported are ${[...HUGGINGFACE_ARCHITECTURES.keys()].join(', ')}`,
  );
}

function refuseUnsupported(fields: Fields, { activation, mlpBias, windows }: ArchitectureRow): void {
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
  const known = { silu: ['silu', 'swish'], gelu_tanh: ['gelu_pytorch_tanh'] }[activation];
  for (const key of ['hidden_act', 'hidden_activation']) {
    const name = fields.string(key, known[0]);
    // The first Gemma's files say this and mean its approximation by tanh, as transformers reads them.
    const meant = activation === 'gelu_tanh' && key === 'hidden_act' && name === 'gelu';
    if (!meant && !known.includes(name))
      throw fields.unsupported(`has "${key}": ${show(name)}; ${show(known[0])} is supported`);
  }
  if (mlpBias && fields.boolean('mlp_bias', false))
    throw fields.unsupported('has "mlp_bias": true; MLPs without bias are supported');
  if (fields.boolean('use_bidirectional_attention', false))
    throw fields.unsupported('has "use_bidirectional_attention": true; attention to earlier positions is supported');
  const layerTypes = fields.raw('layer_types');
  if (!windows.byLayerTypes && Array.isArray(layerTypes) && layerTypes.some((type) => type !== layerTypes[0])) {
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

/** Positions a query of each layer may look back; 0: all. */
function readWindows(fields: Fields, windows: Windows, nLayers: number): number[] {
  const types = windows.byLayerTypes ? readLayerTypes(fields, nLayers) : undefined;
  const on =
    !fields.isNull('sliding_window') &&
    (windows.size > 0 || fields.has('sliding_window')) &&
    (!windows.switch || fields.boolean(windows.switch, false));
  if (!on && types?.includes('sliding_attention')) {
    const off = fields.isNull('sliding_window') || !windows.switch ? 'sliding_window' : windows.switch;
    throw fields.invalid(
      `has "sliding_attention" among its "layer_types" but "${off}": ${show(fields.raw(off) ?? (off === windows.switch ? false : null))}, which allows no window; ` +
        'both or neither are expected',
    );
  }
  const windowed = Array.from(
    { length: nLayers },
    (_, layer) => on && (types ? types[layer] === 'sliding_attention' : windows.has(layer, fields)),
  );
  const size = windowed.includes(true)
    ? fields.integer('sliding_window', LIMITS.contextLength, windows.size || undefined)
    : 0;
  return windowed.map((has) => (has ? size : 0));
}

function readLayerTypes(fields: Fields, nLayers: number): string[] | undefined {
  const types = fields.raw('layer_types');
  if (types === undefined) return undefined;
  const known = ['full_attention', 'sliding_attention'];
  if (!Array.isArray(types) || types.length !== nLayers)
    throw fields.invalid(`has "layer_types": ${show(types)}; a list of ${nLayers} is expected`);
  const unknown: unknown = types.find((type) => !known.includes(type as string));
  if (unknown !== undefined)
    throw fields.unsupported(`has ${show(unknown)} among its "layer_types"; supported are ${known.join(', ')}`);
  return types as string[];
}

function readFormula(fields: Fields, architecture: ArchitectureRow, dim: number): Formula {
  const { caps, attentionScalar, multipliers } = architecture;
  const scale = (key: string) => (multipliers ? fields.number(key, LIMITS.scale, 1) : 1);
  const cap = (key: string, fallback: number | undefined) =>
    fallback === undefined || fields.isNull(key) || (fallback === 0 && !fields.has(key))
      ? 0
      : fields.number(key, LIMITS.cap, fallback || undefined);
  return {
    ...LLAMA_FORMULA,
    activation: architecture.activation,
    normOffset: architecture.normOffset,
    postNorms: architecture.postNorms,
    embeddingScale: architecture.scaledEmbedding ? Math.sqrt(dim) : scale('embedding_multiplier'),
    residualScale: scale('residual_multiplier'),
    attentionScale:
      attentionScalar !== undefined
        ? 1 / Math.sqrt(fields.number('query_pre_attn_scalar', LIMITS.scale, attentionScalar))
        : multipliers
          ? scale('attention_multiplier')
          : 0,
    attentionCap: cap('attn_logit_softcapping', caps?.attention),
    logitScale: 1 / scale('logits_scaling'),
    logitCap: cap('final_logit_softcapping', caps?.logits),
  };
}
