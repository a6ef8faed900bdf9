/** Largest |a − b|; infinite when the lengths differ or a value is not a number. */
export function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let max = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs(a[i]! - b[i]!);
    if (!(difference <= max)) max = Number.isNaN(difference) ? Infinity : difference;
  }
  return max;
}

/** Log-probability of each next id: [ids.length − 1] out of rows [ids.length][vocabSize]. */
export function nextLogProbs(rows: ReadonlyArray<ArrayLike<number>>, ids: ArrayLike<number>): Float64Array {
  return Float64Array.from({ length: ids.length - 1 }, (_, i) => rows[i]![ids[i + 1]!]!);
}

/** Kullback–Leibler divergence (nats) of q from p, both given as log-probabilities [vocabSize]. */
export function klDivergence(p: ArrayLike<number>, q: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < p.length; i++) total += Math.exp(p[i]!) * (p[i]! - q[i]!);
  return total;
}

/** Index of the largest value, the first among equals. */
export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

/** Index of the first element whose bits differ, −1 when none does; 0 when the lengths differ. */
export function firstDifference(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return 0;
  return a.findIndex((value, i) => !Object.is(value, b[i]));
}
