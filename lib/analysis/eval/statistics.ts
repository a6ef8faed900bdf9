/** A mean and its standard error. */
export interface Estimate {
  mean: number;
  /** The standard error of the mean, taking the values as independent: √(s² / n) with the sample variance s². 0 for a single value. */
  standardError: number;
}

/** The mean of at least one value. */
export function estimate(values: ArrayLike<number>): Estimate {
  const n = values.length;
  let sum = 0;
  for (let i = 0; i < n; i++) sum += values[i]!;
  const mean = sum / n;
  let squares = 0;
  for (let i = 0; i < n; i++) squares += (values[i]! - mean) ** 2;
  return { mean, standardError: n > 1 ? Math.sqrt(squares / (n - 1) / n) : 0 };
}

/** The value at a fraction of the sorted values; between two, their weighted mean. */
export function quantile(values: Iterable<number>, fraction: number): number {
  const sorted = Float64Array.from(values).sort();
  const at = (sorted.length - 1) * fraction;
  const below = sorted[Math.floor(at)]!;
  return below + (sorted[Math.ceil(at)]! - below) * (at - Math.floor(at));
}

/**
 * An interval that contains the median of the distribution the values are drawn from, with at least this confidence,
 * whatever that distribution is. Its ends are the k-th least and the k-th greatest of the values, where k follows from
 * the binomial distribution. The interval is infinite when there are too few values.
 */
export function medianInterval(values: readonly number[], confidence: number): [low: number, high: number] {
  const sorted = Float64Array.from(values).sort();
  const n = sorted.length;
  let [k, outside] = [0, 0];
  // The logarithm of the probability of exactly k values below the median: the probability itself is no double where
  // there are a thousand.
  let log = -n * Math.LN2;
  while (2 * (outside + Math.exp(log)) <= 1 - confidence) {
    outside += Math.exp(log);
    k++;
    log += Math.log((n - k + 1) / k);
  }
  return k === 0 ? [-Infinity, Infinity] : [sorted[k - 1]!, sorted[n - k]!];
}

/** `count` of the indices 0 … total − 1, ascending, drawn without replacement; the same for the same seed. */
export function drawIndices(total: number, count: number, seed: number): number[] {
  const random = mulberry32(seed);
  const indices = Array.from({ length: total }, (_, i) => i);
  const drawn = Math.min(count, total);
  // The beginning of a Fisher–Yates shuffle.
  for (let i = 0; i < drawn; i++) {
    const other = i + Math.floor(random() * (total - i));
    [indices[i], indices[other]] = [indices[other]!, indices[i]!];
  }
  return indices.slice(0, drawn).sort((a, b) => a - b);
}

/** Uniform numbers in [0, 1) with 32 random bits: Tommy Ettinger's Mulberry32. */
export function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Spearman's rank correlation of two lists of the same length; equal values share their mean rank. NaN when a list is
 * all the same.
 */
export function rankCorrelation(a: readonly number[], b: readonly number[]): number {
  const [x, y] = [ranks(a), ranks(b)];
  const mean = (a.length - 1) / 2;
  let [products, squaresX, squaresY] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    products += (x[i]! - mean) * (y[i]! - mean);
    squaresX += (x[i]! - mean) ** 2;
    squaresY += (y[i]! - mean) ** 2;
  }
  return products / Math.sqrt(squaresX * squaresY);
}

/** The place of each value among all, from 0. */
function ranks(values: readonly number[]): number[] {
  const order = values.map((_, i) => i).sort((i, j) => values[i]! - values[j]!);
  const places = Array.from(values, () => 0);
  for (let from = 0, to = 0; from < order.length; from = to) {
    while (to < order.length && values[order[to]!] === values[order[from]!]) to++;
    for (let i = from; i < to; i++) places[order[i]!] = (from + to - 1) / 2;
  }
  return places;
}
