import { quantile } from '../dist/analysis/eval/statistics.js';

/** Median (min–max). */
export function spread(values, digits) {
  const [median, min, max] = [0.5, 0, 1].map((q) => quantile(values, q).toFixed(digits));
  return `${median} (${min}–${max})`;
}
