import { ARCHITECTURES, type ArchitectureRow, GGUF_ARCHITECTURES, LLAMA_FORMULA } from './architectures.js';
import type { ConfiguredModel } from './config.js';
import { ropeOfLayer } from './config_rope.js';
import { Fields, show } from './fields.js';
import type { GgufFile } from './gguf.js';
import { checkConfig, LIMITS } from './layout.js';
import { ropeFrequencies, yarnAttentionFactor, type RopeScaling } from './rope.js';
import type { Architecture, Formula, GgufValue, LayerFormula, ModelConfig } from './types.js';

/** Keys that, unless zero, change the arithmetic beyond what is computed of architectures that do not have them. */
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
 * tensor rope_freqs.weight or rope_factors_short.weight where there is one. Throws INVALID_CHECKPOINT or
 * UNSUPPORTED_MODEL; `source` names the file in messages.
 */
export function ggufConfig(
  gguf: Pick<GgufFile, 'metadata' | 'tensors'>,
  ropeDivisors: Float32Array | undefined,
  source: string,
): ConfiguredModel {
  const general = new Fields((key) => gguf.metadata.get(key), source);
  const name = readArchitecture(general);
  const architecture = ARCHITECTURES[name];
  const fields = new Fields((key) => gguf.metadata.get(`${name}.${key}`), source);
  refuseUnsupported(fields, architecture);

  const dim = fields.integer('embedding_length', LIMITS.dim);
  const nLayers = fields.integer('block_count', LIMITS.nLayers);
  const nHeads = perLayer(fields, 'attention.head_count', nLayers);
  const headDim = readHeadDim(fields, dim, nHeads);
  const layers = readLayers(fields, architecture, nLayers);
  const shapeOf = new Map(gguf.tensors.map((tensor) => [tensor.name, tensor.shape]));
  const config: ModelConfig = {
    architecture: name,
    dim,
    hiddenDim: perLayer(fields, 'feed_forward_length', nLayers),
    headDim,
    nHeads,
    nKvHeads: fields.has('attention.head_count_kv') ? perLayer(fields, 'attention.head_count_kv', nLayers) : nHeads,
    nLayers,
    vocabSize: readVocabSize(general, gguf.metadata, shapeOf.get('token_embd.weight')),
    normEps: fields.number('attention.layer_norm_rms_epsilon', LIMITS.normEps),
    ...readRope(fields, architecture, headDim, layers, ropeDivisors),
    ropeInterleaved: architecture.gguf!.interleaved,
    formula: readFormula(fields, architecture, { dim, nHeads, headDim, nLayers }),
    layers,
    tiedEmbeddings: !shapeOf.has('output.weight'),
  };
  checkConfig(config, source);
  // Metadata does not say whether there are biases; where layer 0 has them, every layer must.
  const options = {
    qkvBias: shapeOf.has('blk.0.attn_q.bias'),
    outputBias: shapeOf.has('blk.0.attn_output.bias'),
    qkNorm: architecture.qkNorm,
  };
  return { config, options, names: architecture.names };
}

function readArchitecture(general: Fields): Architecture {
  const kind = general.string('general.type', 'model');
  if (kind !== 'model')
    throw general.unsupported(
      'is a GGUF file of type ' +
        `${show(kind)}${kind === 'adapter' ? '; adapters are supported as PEFT folders' : ''}; a whole model is ` +
        'expected',
    );
  const stored = general.string('general.architecture');
  const name = GGUF_ARCHITECTURES.get(stored);
  if (name) return name;
  throw general.unsupported(
    `holds a model of architecture ${show(stored)}; supported are ${[...GGUF_ARCHITECTURES.keys()].join(', ')}`,
  );
}

/** Keys of caps and of multipliers: read where the architecture's row has such, refused elsewhere unless they are zero. */
const CAPS = ['attn_logit_softcapping', 'final_logit_softcapping'];
const MULTIPLIERS = ['attention.scale', 'logit_scale', 'embedding_scale', 'residual_scale'];

function refuseUnsupported(fields: Fields, { caps, multipliers }: ArchitectureRow): void {
  const read = [...(caps ? CAPS : []), ...(multipliers ? MULTIPLIERS : [])];
  for (const key of MUST_BE_ZERO) {
    const value = fields.raw(key);
    if (value !== undefined && value !== 0 && !read.includes(key))
      throw fields.unsupported(`has "${key}": ${show(value)}, which this version does not compute`);
  }
  for (const [key, values] of Object.entries(YARN_DEFAULTS)) {
    const value = fields.raw(key);
    if (value !== undefined && !values.includes(value as number))
      throw fields.unsupported(`has "${key}": ${show(value)}, which this version does not compute`);
  }
}

/** Windows and rotations of the layers, as in config.json; GGUF leaves them to the architecture's name. */
function readLayers(fields: Fields, architecture: ArchitectureRow, nLayers: number): LayerFormula[] {
  const { windows } = architecture;
  // A row that knows no window by itself has one in every layer where the file names it.
  const everywhere = windows.size === 0;
  const size = architecture.gguf!.windows
    ? fields.integer('attention.sliding_window', { min: 0, max: LIMITS.contextLength.max }, windows.size)
    : 0;
  const { ropeSwitch } = architecture.gguf!;
  const rotates = ropeSwitch === undefined || fields.boolean(ropeSwitch, true);
  return Array.from({ length: nLayers }, (_, layer) => {
    const window = everywhere || windows.has(layer, fields) ? size : 0;
    return { window, rope: rotates ? ropeOfLayer(layer, window, fields, architecture) : -1 };
  });
}

function readFormula(
  fields: Fields,
  architecture: ArchitectureRow,
  { dim, nHeads, headDim, nLayers }: Pick<ModelConfig, 'dim' | 'nHeads' | 'headDim' | 'nLayers'>,
): Formula {
  const { caps, attentionScalar, multipliers, gguf } = architecture;
  // Zero means the default, as in llama.cpp.
  const number = (key: string) => fields.number(key, { min: 0, max: LIMITS.scale.max }, 0);
  const scale = (key: string) => (multipliers ? number(key) || 1 : 1);
  const cap = (key: string, fallback: number | undefined) =>
    fallback === undefined ? 0 : fields.number(key, { min: 0, max: LIMITS.cap.max }, fallback);
  const width = nLayers === gguf!.wideLayers ? dim / nHeads : headDim;
  return {
    ...LLAMA_FORMULA,
    activation: architecture.activation,
    postNorms: architecture.postNorms,
    embeddingScale: architecture.scaledEmbedding ? Math.sqrt(dim) : scale('embedding_scale'),
    residualScale: scale('residual_scale'),
    attentionScale: attentionScalar !== undefined ? 1 / Math.sqrt(width) : multipliers ? number('attention.scale') : 0,
    attentionCap: cap('attn_logit_softcapping', caps?.attention),
    logitScale: 1 / scale('logit_scale'),
    logitCap: cap('final_logit_softcapping', caps?.logits),
  };
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
  const values = fields.integer('attention.value_length', LIMITS.headDim, headDim);
  if (values !== headDim)
    throw fields.unsupported(
      `has heads of width ${headDim} but "attention.value_length": ${values}; the same width is supported`,
    );
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
  { phiRope, windowTheta }: ArchitectureRow,
  headDim: number,
  layers: readonly LayerFormula[],
  divisors: Float32Array | undefined,
): Pick<ModelConfig, 'ropeDim' | 'ropeFrequencies' | 'ropeAttentionFactor' | 'contextLength'> {
  const contextLength = fields.integer('context_length', LIMITS.contextLength);
  const ropeDim = fields.integer('rope.dimension_count', LIMITS.headDim, headDim);
  if (ropeDim !== headDim && !(phiRope && ropeDim < headDim && ropeDim % 2 === 0))
    throw fields.unsupported(
      `has heads of width ${headDim} but "rope.dimension_count": ${ropeDim}; the same width is supported`,
    );
  const theta = fields.number('rope.freq_base', LIMITS.ropeTheta, windowTheta === undefined ? 10000 : 1e6);
  if (
    divisors &&
    (divisors.length !== ropeDim / 2 || !divisors.every((divisor) => divisor > 0 && Number.isFinite(divisor)))
  ) {
    throw fields.invalid(`has a tensor of rotary divisors that is not ${ropeDim / 2} positive numbers`);
  }
  const scaling = readScaling(fields, contextLength, phiRope && divisors !== undefined);
  const attentionFactor =
    fields.number('rope.scaling.attn_factor', LIMITS.ropeFactor, 1) *
    (scaling.type === 'yarn' ? yarnAttentionFactor(scaling.factor) : 1);
  const frequencies = ropeFrequencies(ropeDim, theta, scaling, divisors);
  if (!layers.some(({ rope }) => rope === 1))
    return {
      ropeDim,
      ropeFrequencies: frequencies,
      ropeAttentionFactor: attentionFactor,
      // LongRoPE's divisors for short texts hold up to there, see config_rope.ts.
      contextLength:
        phiRope && divisors
          ? Math.min(
              contextLength,
              fields.integer('rope.scaling.original_context_length', LIMITS.contextLength, contextLength),
            )
          : contextLength,
    };
  if (attentionFactor !== 1)
    throw fields.unsupported('asks for yarn in a model with two rotary bases; supported are none and linear');
  const base = fields.number('rope.freq_base_swa', LIMITS.ropeTheta, windowTheta);
  const inWindows = ropeFrequencies(ropeDim, base, { type: 'none' });
  return {
    ropeDim,
    contextLength,
    ropeFrequencies: Float64Array.of(...frequencies, ...inWindows),
    ropeAttentionFactor: 1,
  };
}

function readScaling(fields: Fields, contextLength: number, longrope: boolean): RopeScaling {
  const type = fields.string('rope.scaling.type', 'linear');
  const { min, max } = LIMITS.ropeFactor;
  // A factor of zero means none, and "scale_linear" is the older name.
  const factor =
    fields.number('rope.scaling.factor', { min: 0, max }, 0) ||
    fields.number('rope.scale_linear', { min: 0, max }, 0) ||
    1;
  if (factor < min) throw fields.invalid(`has a rotary scaling factor of ${factor}; at least ${min} is expected`);
  if (type === 'longrope' && longrope) return { type: 'none' }; // its divisors stand in a tensor
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
