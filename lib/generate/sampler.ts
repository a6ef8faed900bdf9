import { keepLargest, kthLargest, nucleus } from './cutoff.js';
import { CqilError } from '../errors.js';
import { readSamplingOptions, type CheckedSampling, type SamplingOptions } from './sampling_options.js';
import { MAX_SHORTLIST, type Shortlist } from '../engine/shortlist.js';

/** A token and its log-probability in nats. */
export interface TokenLogprob {
  token: number;
  logprob: number;
}

export interface Sample {
  token: number;
  /**
   * Log-probability of `token` in the model's own distribution, softmax of the logits before bias, penalties and
   * temperature. Present when `logprobs` was asked for.
   */
  logprob?: number;
  /** The likeliest tokens of that distribution, likeliest first, ties by lower id. */
  alternatives?: TokenLogprob[];
}

const MAX_SEED = Number.MAX_SAFE_INTEGER;

/**
 * Chooses tokens from logits, in this order: logit bias, repetition penalty, frequency and presence penalties,
 * temperature, top-k, top-p, min-p, then one draw. The draw walks the cumulative probabilities in order of token id,
 * not of likelihood, so that two backends whose logits differ in the last bit, and rank near-ties differently, still
 * draw the same token.
 */
export class Sampler {
  /** The seed in use, given or made up. */
  readonly seed: number;
  /**
   * The length of the shortlist that `sample` needs; undefined when it needs all logits, as where a token below any
   * list may rise into it.
   */
  readonly shortlist: number | undefined;
  /** Whether `sample` chooses the first of every shortlist. */
  readonly takesFirst: boolean;
  readonly #options: CheckedSampling;
  readonly #random: () => number;
  readonly #recent: number[] = [];
  readonly #generated = new Map<number, number>();
  /** Adjusted logits; then, from the front, the surviving candidates' weights. As long as what is sampled from. */
  #weights = new Float64Array();
  #ids = new Int32Array();
  #scratch = new Float64Array();

  /** Throws INVALID_ARGUMENT for an option out of its range. */
  constructor(options: SamplingOptions, vocabSize: number) {
    const checked = readSamplingOptions(options, vocabSize);
    const { temperature, topK, repetitionPenalty, frequencyPenalty, presencePenalty, seed, logprobs } = checked;
    this.#options = checked;
    this.seed = seed ?? Math.floor(Math.random() * MAX_SEED);
    this.#random = uniform(this.seed);
    const penalized = repetitionPenalty !== 1 || frequencyPenalty !== 0 || presencePenalty !== 0;
    const raised = this.#options.bias.some(([, bias]) => bias > 0);
    // Each token that a bias lowers may have been one of the likeliest, and lets another take its place.
    const candidates = (temperature === 0 ? 1 : topK || Infinity) + this.#options.bias.length;
    const needed = Math.min(vocabSize, Math.max(candidates, logprobs ?? 0));
    this.shortlist = penalized || raised || needed > MAX_SHORTLIST ? undefined : needed;
    this.takesFirst = this.shortlist !== undefined && temperature === 0 && this.#options.bias.length === 0;
  }

  /** Tells the repetition penalty what the text so far is. */
  prime(prompt: ArrayLike<number>): void {
    const window = this.#options.repetitionWindow;
    for (let i = Math.max(0, prompt.length - window); i < prompt.length; i++) this.#remember(prompt[i]!);
  }

  /**
   * Chooses a token and remembers it for the penalties: after a shortlist of as many entries as `shortlist` says, else
   * after all logits [vocabSize]. They are not changed. Both give the same token.
   */
  sample(logits: Float32Array | Shortlist): Sample {
    const sample = ArrayBuffer.isView(logits) ? this.#sampleAll(logits) : this.#sampleListed(logits);
    this.#remember(sample.token);
    this.#generated.set(sample.token, (this.#generated.get(sample.token) ?? 0) + 1);
    return sample;
  }

  #reserve(length: number): void {
    if (this.#weights.length === length) return;
    this.#weights = new Float64Array(length);
    this.#ids = new Int32Array(length);
    this.#scratch = new Float64Array(length);
  }

  #sampleAll(logits: Float32Array): Sample {
    this.#reserve(logits.length);
    const max = this.#adjust(logits);
    const token =
      this.#options.temperature === 0
        ? this.#weights.indexOf(max)
        : this.#draw(this.#keepLikely(this.#keepTopK(), max));
    return this.#options.logprobs === undefined
      ? { token }
      : { token, ...describe(logits, token, this.#options.logprobs, this.#weights, this.#scratch) };
  }

  #sampleListed({ ids, logits, logSumExp }: Shortlist): Sample {
    if (Number.isNaN(logSumExp)) throw notFinite();
    const { temperature, topK } = this.#options;
    const likeliest = Array.from(ids, (token, i) => ({ token, logit: logits[i]! }));
    for (const [id, bias] of this.#options.bias) {
      const at = ids.indexOf(id);
      if (at >= 0) likeliest[at]!.logit += bias;
    }
    if (this.#options.bias.length > 0) likeliest.sort((a, b) => b.logit - a.logit || a.token - b.token);
    let { token } = likeliest[0]!;
    const max = likeliest[0]!.logit;
    if (max === -Infinity) throw allForbidden();
    if (temperature > 0) {
      const candidates = likeliest.slice(0, topK || ids.length).sort((a, b) => a.token - b.token);
      this.#reserve(candidates.length);
      candidates.forEach((candidate, i) => {
        this.#ids[i] = candidate.token;
        this.#weights[i] = candidate.logit;
      });
      token = this.#draw(this.#keepLikely(candidates.length, max));
    }
    if (this.#options.logprobs === undefined) return { token };
    const alternatives = Array.from(ids.subarray(0, this.#options.logprobs), (id, i) => ({
      token: id,
      logprob: logits[i]! - logSumExp,
    }));
    return { token, logprob: logits[ids.indexOf(token)]! - logSumExp, alternatives };
  }

  #remember(token: number): void {
    this.#recent.push(token);
    if (this.#recent.length > this.#options.repetitionWindow) this.#recent.shift();
  }

  /** Fills `#weights` with biased and penalized logits; returns the largest. */
  #adjust(logits: Float32Array): number {
    const { repetitionPenalty, frequencyPenalty, presencePenalty } = this.#options;
    const adjusted = this.#weights;
    adjusted.set(logits);
    for (const [id, bias] of this.#options.bias) adjusted[id]! += bias;
    if (repetitionPenalty !== 1) {
      for (const id of new Set(this.#recent))
        adjusted[id] = adjusted[id]! > 0 ? adjusted[id]! / repetitionPenalty : adjusted[id]! * repetitionPenalty;
    }
    if (frequencyPenalty !== 0 || presencePenalty !== 0) {
      for (const [id, count] of this.#generated) adjusted[id]! -= frequencyPenalty * count + presencePenalty;
    }

    let max = -Infinity;
    let finite = true;
    for (let id = 0; id < adjusted.length; id++) {
      const logit = adjusted[id]!;
      if (logit > max) max = logit;
      // False for NaN too, which no comparison with `max` would show.
      finite &&= logit < Infinity;
    }
    if (!finite) throw notFinite();
    if (max === -Infinity) throw allForbidden();
    return max;
  }

  /**
   * Moves the ids and logits that top-k keeps to the front of `#ids` and `#weights`, in order of id; returns how many.
   */
  #keepTopK(): number {
    const { topK } = this.#options;
    const ids = this.#ids;
    for (let id = 0; id < ids.length; id++) ids[id] = id;
    if (topK === 0 || topK >= ids.length) return ids.length;
    return keepLargest(ids, this.#weights, ids.length, kthLargest(this.#weights, topK, this.#scratch));
  }

  /**
   * Makes weights of the first `count` logits and moves those that top-p and min-p keep to the front; returns how many.
   */
  #keepLikely(count: number, max: number): number {
    const { temperature, topP, minP } = this.#options;
    const ids = this.#ids;
    const weights = this.#weights;
    let total = 0;
    for (let i = 0; i < count; i++) {
      // Unnormalised probabilities; the likeliest token weighs 1.
      weights[i] = Math.exp((weights[i]! - max) / temperature);
      total += weights[i]!;
    }
    if (topP < 1) count = keepLargest(ids, weights, count, nucleus(weights, count, topP, total, this.#scratch));
    if (minP > 0) count = keepLargest(ids, weights, count, { value: minP, ties: Infinity });
    return count;
  }

  #draw(count: number): number {
    const weights = this.#weights;
    let total = 0;
    for (let i = 0; i < count; i++) total += weights[i]!;
    let rest = this.#random() * total;
    let last = 0;
    for (let i = 0; i < count; i++) {
      if (weights[i] === 0) continue;
      last = i;
      rest -= weights[i]!;
      if (rest < 0) break;
    }
    // When rounding leaves a rest after the last candidate, the last possible one is it.
    return this.#ids[last]!;
  }
}

/**
 * Log-probability of `token`, and the `n` likeliest tokens, under softmax(logits). Overwrites `values` and `scratch`
 * [vocabSize].
 */
function describe(
  logits: Float32Array,
  token: number,
  n: number,
  values: Float64Array,
  scratch: Float64Array,
): Required<Omit<Sample, 'token'>> {
  let max = -Infinity;
  for (let id = 0; id < logits.length; id++) if (logits[id]! > max) max = logits[id]!;
  let total = 0;
  for (let id = 0; id < logits.length; id++) total += Math.exp(logits[id]! - max);
  const logNormalizer = max + Math.log(total);

  const alternatives: TokenLogprob[] = [];
  if (n > 0) {
    values.set(logits);
    const { value, ties } = kthLargest(values, n, scratch);
    let admitted = 0;
    for (let id = 0; id < logits.length; id++) {
      if (logits[id]! > value || (logits[id] === value && admitted++ < ties))
        alternatives.push({ token: id, logprob: logits[id]! - logNormalizer });
    }
    // The sort is stable, so equal ones stay in order of id.
    alternatives.sort((a, b) => b.logprob - a.logprob);
  }
  return { logprob: logits[token]! - logNormalizer, alternatives };
}

function notFinite(): CqilError {
  return new CqilError('NOT_FINITE', 'A logit is NaN or Infinity; expected numbers.');
}

function allForbidden(): CqilError {
  return new CqilError(
    'INVALID_ARGUMENT',
    'Every token is forbidden: all logits are -Infinity after logitBias; expected at least one token to be possible.',
  );
}

/**
 * Uniform numbers in [0, 1) with 53 random bits, from the sfc32 generator of PractRand, its state filled by splitmix32.
 */
function uniform(seed: number): () => number {
  let mix = seed >>> 0;
  const splitmix = (): number => {
    mix = (mix + 0x9e3779b9) | 0;
    let z = mix;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return z ^ (z >>> 15);
  };
  let a = splitmix();
  mix ^= Math.floor(seed / 2 ** 32);
  let b = splitmix();
  let c = splitmix();
  let counter = 1;
  const next = (): number => {
    const out = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + out) | 0;
    return out >>> 0;
  };
  // Nearby seeds start from nearby states; a dozen rounds part them.
  for (let i = 0; i < 12; i++) next();
  return () => ((next() >>> 5) * 2 ** 26 + (next() >>> 6)) / 2 ** 53;
}
