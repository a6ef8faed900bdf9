/** How far one next-token distribution is from another. */
export interface Divergence {
  /** Kullback–Leibler divergence KL(p ‖ q), nats, never negative. */
  kl: number;
  /** Whether both have the same most likely token. */
  sameTop: boolean;
}

/** A next-token distribution, read off logits [vocabSize] in float64. */
export class NextToken {
  readonly #logits: Float32Array;
  readonly #logSum: number;
  /** The most likely token, the first among equals. */
  readonly top: number;

  constructor(logits: Float32Array) {
    let top = 0;
    for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[top]!) top = i;
    const max = logits[top]!;
    let sum = 0;
    for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i]! - max);
    this.#logits = logits;
    this.#logSum = max + Math.log(sum);
    this.top = top;
  }

  /** Log-probability of a token, nats. */
  logProb(id: number): number {
    return this.#logits[id]! - this.#logSum;
  }

  /** How far `other` is from this distribution, over the same vocabulary. */
  divergence(other: NextToken): Divergence {
    const [p, q] = [this.#logits, other.#logits];
    const shift = other.#logSum - this.#logSum;
    let kl = 0;
    for (let i = 0; i < p.length; i++) kl += Math.exp(p[i]! - this.#logSum) * (p[i]! - q[i]! + shift);
    // Rounding can leave distributions that are nearly the same a hair below zero.
    return { kl: Math.max(0, kl), sameTop: this.top === other.top };
  }
}
