/** How a model stretches rotary position embeddings beyond the context it was trained on. */
export type RopeScaling =
  | { type: 'none' }
  /** Every frequency divided by `factor` (position interpolation, arXiv 2306.15595). */
  | { type: 'linear'; factor: number }
  | Llama3Scaling
  | YarnScaling;

/** Llama 3.1: long wavelengths divided by `factor`, short ones kept, a linear blend between. */
export interface Llama3Scaling {
  type: 'llama3';
  factor: number;
  lowFreqFactor: number;
  highFreqFactor: number;
  originalContextLength: number;
}

/** YaRN (arXiv 2309.00071): dimensions that turn often are kept, those that turn rarely divided by `factor`. */
export interface YarnScaling {
  type: 'yarn';
  factor: number;
  /** Rotations over the original context above which a dimension is kept, and below which it is divided. */
  betaFast: number;
  betaSlow: number;
  originalContextLength: number;
  /** Whether the bounds are rounded outward to whole dimensions. */
  truncate: boolean;
}

/**
 * Rotation per position in radians, one for each pair of a head's dimensions: [headDim / 2], scaling applied.
 * `divisors`, when given, divide the unscaled frequencies first (GGUF's rope_freqs tensor).
 */
export function ropeFrequencies(
  headDim: number,
  theta: number,
  scaling: RopeScaling,
  divisors?: ArrayLike<number>,
): Float64Array {
  const frequencies = new Float64Array(headDim / 2);
  const correction = scaling.type === 'yarn' ? yarnRange(headDim, theta, scaling) : undefined;
  for (let i = 0; i < frequencies.length; i++) {
    const frequency = theta ** ((-2 * i) / headDim) / (divisors?.[i] ?? 1);
    switch (scaling.type) {
      case 'none':
        frequencies[i] = frequency;
        break;
      case 'linear':
        frequencies[i] = frequency / scaling.factor;
        break;
      case 'llama3':
        frequencies[i] = llama3Frequency(frequency, scaling);
        break;
      case 'yarn':
        frequencies[i] = blend(frequency / scaling.factor, frequency, 1 - ramp(i, correction!));
        break;
    }
  }
  return frequencies;
}

/**
 * Factor on cos and sin that YaRN derives from the context's growth: 0.1·mscale·ln(factor) + 1 (arXiv 2309.00071, eq.
 * 22).
 */
export function yarnAttentionFactor(factor: number, mscale = 1): number {
  return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
}

/** Factor on cos and sin that LongRoPE derives likewise: √(1 + ln(factor) / ln(trained length)) (arXiv 2402.13753). */
export function longropeAttentionFactor(factor: number, trainedLength: number): number {
  return factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(trainedLength));
}

function llama3Frequency(frequency: number, scaling: Llama3Scaling): number {
  const { factor, lowFreqFactor, highFreqFactor, originalContextLength } = scaling;
  const rotations = (originalContextLength * frequency) / (2 * Math.PI);
  if (rotations > highFreqFactor) return frequency;
  if (rotations < lowFreqFactor) return frequency / factor;
  return blend(frequency / factor, frequency, (rotations - lowFreqFactor) / (highFreqFactor - lowFreqFactor));
}

interface DimensionRange {
  low: number;
  high: number;
}

/** The pairs between which YaRN blends: those that turn betaFast and betaSlow times over the original context. */
function yarnRange(headDim: number, theta: number, scaling: YarnScaling): DimensionRange {
  const pairOf = (rotations: number) =>
    (headDim * Math.log(scaling.originalContextLength / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  const [floor, ceil] = scaling.truncate ? [Math.floor, Math.ceil] : [Number, Number];
  const low = Math.max(floor(pairOf(scaling.betaFast)), 0);
  const high = Math.min(ceil(pairOf(scaling.betaSlow)), headDim - 1);
  // Equal bounds would divide by zero; the reference implementations widen them by this much.
  return { low, high: high === low ? high + 0.001 : high };
}

function ramp(i: number, { low, high }: DimensionRange): number {
  return Math.min(Math.max((i - low) / (high - low), 0), 1);
}

function blend(from: number, to: number, share: number): number {
  return from * (1 - share) + to * share;
}
