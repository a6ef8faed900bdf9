import { isRotated, type ArchitectureRow } from './architectures.js';
import { Fields, show } from './fields.js';
import { LIMITS } from './layout.js';
import { longropeAttentionFactor, ropeFrequencies, yarnAttentionFactor, type RopeScaling } from './rope.js';
import type { LayerFormula, ModelConfig } from './types.js';

/** Of a config.json: what is rotated, how far, and over how many positions the model can be used with that. */
export type Rope = Pick<ModelConfig, 'ropeDim' | 'ropeFrequencies' | 'ropeAttentionFactor' | 'contextLength'>;

/**
 * Reads rotary parameters. transformers 5 keeps all of them in "rope_parameters", of each kind of layer where kinds
 * differ; before, "rope_theta" stood alone beside "rope_scaling".
 */
export function readRope(fields: Fields, architecture: ArchitectureRow, headDim: number, contextLength: number): Rope {
  const theta = architecture.defaults.ropeTheta;
  const given = fields.object('rope_scaling') ?? fields.object('rope_parameters') ?? Fields.ofJson({}, 'rope_scaling');
  if (architecture.windowTheta === undefined)
    return readOne(fields, given, architecture, headDim, contextLength, theta);
  const whole = given.object('full_attention') ?? given;
  const inWindows = given.object('sliding_attention') ?? Fields.ofJson({}, 'rope_scaling');
  const first = readOne(fields, whole, architecture, headDim, contextLength, theta);
  const windowTheta = inWindows.has('rope_theta')
    ? inWindows.number('rope_theta', LIMITS.ropeTheta)
    : fields.number('rope_local_base_freq', LIMITS.ropeTheta, architecture.windowTheta);
  const scaling = readScaling(inWindows, contextLength, contextLength);
  const second = ropeFrequencies(headDim, windowTheta, scaling);
  if (first.ropeAttentionFactor !== 1 || scaling.type === 'yarn')
    throw fields.unsupported('asks for yarn in a model with two rotary bases; supported are default, linear, llama3');
  return { ...first, ropeFrequencies: Float64Array.of(...first.ropeFrequencies, ...second) };
}

/** Which rotation each layer has: that of layers with a window, where it has one of its own. */
export function ropeOfLayer(
  layer: number,
  window: number,
  fields: Fields,
  architecture: ArchitectureRow,
): LayerFormula['rope'] {
  if (architecture.noRopeInterval !== undefined && !isRotated(layer, fields, architecture.noRopeInterval)) return -1;
  return architecture.windowTheta !== undefined && window > 0 ? 1 : 0;
}

function readOne(
  fields: Fields,
  rope: Fields,
  { phiRope }: ArchitectureRow,
  headDim: number,
  contextLength: number,
  defaultTheta: number,
): Rope {
  const theta = rope.has('rope_theta')
    ? rope.number('rope_theta', LIMITS.ropeTheta)
    : fields.number('rope_theta', LIMITS.ropeTheta, defaultTheta);
  const rotated = (rope.has('partial_rotary_factor') ? rope : fields).number(
    'partial_rotary_factor',
    { min: 0, max: 1 },
    1,
  );
  if (rotated !== 1 && !phiRope)
    throw fields.unsupported(`has "partial_rotary_factor": ${rotated}; heads that are rotated whole are supported`);
  const ropeDim = Math.floor(headDim * rotated);
  if (ropeDim < 2 || ropeDim % 2 !== 0)
    throw fields.invalid(`rotates ${ropeDim} of ${headDim} values of a head; an even number is expected`);
  const trainedLength = fields.integer(
    'original_max_position_embeddings',
    LIMITS.contextLength,
    rope.integer('original_max_position_embeddings', LIMITS.contextLength, contextLength),
  );
  if (phiRope && ['longrope', 'su', 'yarn'].includes(scalingType(rope)))
    return readLongrope(rope, { ropeDim, theta, contextLength, trainedLength });
  const scaling = readScaling(rope, contextLength, trainedLength);
  return {
    ropeDim,
    contextLength,
    ropeFrequencies: ropeFrequencies(ropeDim, theta, scaling),
    ropeAttentionFactor: scaling.type === 'yarn' ? readAttentionFactor(rope, scaling.factor) : 1,
  };
}

/**
 * LongRoPE (arXiv 2402.13753) divides frequencies by one list up to the length the model was trained on, and by another
 * beyond, where what was cached before would have to be computed anew. The model is used up to that length.
 */
function readLongrope(
  rope: Fields,
  of: { ropeDim: number; theta: number; contextLength: number; trainedLength: number },
): Rope {
  const divisors = rope.numbers('short_factor', LIMITS.ropeFactor, of.ropeDim / 2);
  const factor = rope.number('factor', LIMITS.ropeFactor, of.contextLength / of.trainedLength);
  return {
    ropeDim: of.ropeDim,
    contextLength: Math.min(of.contextLength, of.trainedLength),
    ropeFrequencies: ropeFrequencies(of.ropeDim, of.theta, { type: 'none' }, divisors),
    ropeAttentionFactor: rope.number(
      'attention_factor',
      LIMITS.ropeFactor,
      longropeAttentionFactor(factor, of.trainedLength),
    ),
  };
}

function scalingType(rope: Fields): string {
  return rope.string('rope_type', rope.string('type', 'default'));
}

function readScaling(rope: Fields, contextLength: number, originalContextLength: number): RopeScaling {
  const type = scalingType(rope);
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
