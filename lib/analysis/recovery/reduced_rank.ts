import { cholesky, dot, solveCholesky, topEigenvectors } from './linear_algebra.js';
import type { Moments } from './moments.js';

/** A linear map of low rank, z → Σ_k u_k ⟨v_k, z⟩. */
export interface LowRankMap {
  /** [rank] of [outputs], orthonormal. */
  u: Float64Array[];
  /** [rank] of [inputs]. */
  v: Float64Array[];
  /** Ridge strength, relative to the mean square of an input. */
  ridge: number;
  /** Share of the target's energy that the map explains on the part that chose ridge and rank; below 1. */
  explained: number;
}

/** Ridge strengths tried, relative to the mean square of an input. */
const RIDGES = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1];

/**
 * Reduced-rank ridge regression (Izenman, "Reduced-rank regression for the multivariate linear model", 1975): the full
 * solution W = (G + λI)⁻¹ C of the target on the inputs, projected onto the leading eigenvectors U of Cᵀ (G + λI)⁻¹ C,
 * which are the directions of the outputs it explains best; W U are the v. λ and the rank are the ones that explain
 * most of the other part.
 *
 * @returns undefined when nothing explains anything there.
 */
export function reducedRank(fit: Moments, choose: Moments, target: number, mostRank: number): LowRankMap | undefined {
  const { inputs: n, outputs: m } = fit;
  if (!(choose.energy[target]! > 0)) return undefined;
  let mean = 0;
  for (let i = 0; i < n; i++) mean += fit.gram[i * n + i]! / n;
  let best: LowRankMap | undefined;
  for (const ridge of RIDGES) {
    const factor = Float64Array.from(fit.gram);
    for (let i = 0; i < n; i++) factor[i * n + i]! += ridge * mean;
    if (!cholesky(factor, n)) continue;
    const solution = Float64Array.from(fit.cross[target]!);
    solveCholesky(factor, n, solution, m);
    const u = topEigenvectors(product(fit.cross[target]!, solution, n, m), m, mostRank);
    const v = u.map((direction) => apply(solution, n, m, direction));
    const { rank, explained } = bestRank(u, v, choose, target);
    if (explained > (best?.explained ?? 0)) best = { u: u.slice(0, rank), v: v.slice(0, rank), ridge, explained };
  }
  return best;
}

/** How many of the directions explain most. Because the u are orthonormal, each adds its own share. */
function bestRank(
  u: Float64Array[],
  v: Float64Array[],
  choose: Moments,
  target: number,
): { rank: number; explained: number } {
  const { inputs: n, outputs: m, gram, cross, energy } = choose;
  let [gain, rank, most] = [0, 0, 0];
  for (const [k, vector] of v.entries()) {
    gain += 2 * dot(vector, apply(cross[target]!, n, m, u[k]!)) - quadratic(gram, n, vector);
    if (gain > most) [rank, most] = [k + 1, gain];
  }
  return { rank, explained: most / energy[target]! };
}

/** AᵀB for A, B [n, m]; symmetrized, because rounding alone makes it asymmetric. */
function product(a: Float64Array, b: Float64Array, n: number, m: number): Float64Array {
  const out = new Float64Array(m * m);
  for (let k = 0; k < n; k++) {
    for (let i = 0; i < m; i++) {
      const factor = a[k * m + i]!;
      for (let j = 0; j < m; j++) out[i * m + j]! += factor * b[k * m + j]!;
    }
  }
  for (let i = 0; i < m; i++)
    for (let j = 0; j < i; j++) out[i * m + j] = out[j * m + i] = (out[i * m + j]! + out[j * m + i]!) / 2;
  return out;
}

/** A·x for A [n, m]. */
function apply(a: Float64Array, n: number, m: number, x: Float64Array): Float64Array {
  return Float64Array.from({ length: n }, (_, i) => dot(a.subarray(i * m, (i + 1) * m), x));
}

/** xᵀ·A·x for a symmetric A [n, n] of which the lower triangle counts. */
function quadratic(a: Float64Array, n: number, x: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < n; i++) {
    let row = a[i * n + i]! * x[i]!;
    for (let j = 0; j < i; j++) row += 2 * a[i * n + j]! * x[j]!;
    sum += row * x[i]!;
  }
  return sum;
}
