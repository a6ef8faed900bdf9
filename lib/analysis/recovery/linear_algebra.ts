/** Small dense linear algebra in float64. Matrices are row-major. */

/**
 * Cholesky factor L of a symmetric positive definite matrix [n, n], L·Lᵀ = A, written over its lower triangle; only
 * that triangle is read. False when the matrix is not positive definite.
 */
export function cholesky(a: Float64Array, n: number): boolean {
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = a[i * n + j]!;
      for (let k = 0; k < j; k++) sum -= a[i * n + k]! * a[j * n + k]!;
      if (i > j) a[i * n + j] = sum / a[j * n + j]!;
      else if (sum > 0 && sum < Infinity) a[i * n + i] = Math.sqrt(sum);
      else return false;
    }
  }
  return true;
}

/** Solves L·Lᵀ·X = B over B [n, m], L [n, n] as `cholesky` leaves it. */
export function solveCholesky(l: Float64Array, n: number, b: Float64Array, m: number): void {
  const subtract = (to: number, from: number, factor: number): void => {
    for (let c = 0; c < m; c++) b[to * m + c]! -= factor * b[from * m + c]!;
  };
  const divide = (row: number, by: number): void => {
    for (let c = 0; c < m; c++) b[row * m + c]! /= by;
  };
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < i; k++) subtract(i, k, l[i * n + k]!);
    divide(i, l[i * n + i]!);
  }
  for (let i = n - 1; i >= 0; i--) {
    divide(i, l[i * n + i]!);
    for (let k = 0; k < i; k++) subtract(k, i, l[i * n + k]!);
  }
}

const MOST_ITERATIONS = 200;
/** Iteration ends when the eigenvalues found grow by less than this share of their sum. */
const PRECISION = 1e-10;

/**
 * The eigenvectors of the largest eigenvalues of a symmetric positive semidefinite matrix [n, n], by orthogonal
 * iteration from a fixed start (Golub and Van Loan, Matrix Computations, §8.2.4): up to `count` orthonormal rows [n],
 * fewer where the matrix has no more rank. Eigenvalues that nearly agree may leave their vectors mixed, which spans the
 * same space.
 */
export function topEigenvectors(a: Float64Array, n: number, count: number): Float64Array[] {
  let state = 1;
  const random = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32 - 0.5;
  let vectors = orthonormal(Array.from({ length: Math.min(count, n) }, () => Float64Array.from({ length: n }, random)));
  let before = 0;
  for (let iteration = 0; iteration < MOST_ITERATIONS; iteration++) {
    const images = vectors.map((vector) => multiply(a, n, vector));
    const sum = images.reduce((total, image, i) => total + dot(image, vectors[i]!), 0);
    vectors = orthonormal(images);
    if (sum - before <= PRECISION * sum) break;
    before = sum;
  }
  return vectors;
}

/** Gram–Schmidt, twice over for orthogonality to rounding; what depends on the vectors before it is dropped. */
function orthonormal(vectors: Float64Array[]): Float64Array[] {
  const basis: Float64Array[] = [];
  for (const vector of vectors) {
    const length = Math.sqrt(dot(vector, vector));
    for (let pass = 0; pass < 2; pass++) {
      for (const other of basis) {
        const share = dot(vector, other);
        for (let i = 0; i < vector.length; i++) vector[i]! -= share * other[i]!;
      }
    }
    const rest = Math.sqrt(dot(vector, vector));
    if (rest > 1e-10 * length) basis.push(vector.map((value) => value / rest));
  }
  return basis;
}

/** A·x for A [n, n]. */
function multiply(a: Float64Array, n: number, x: Float64Array): Float64Array {
  const out = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    let sum = 0;
    for (let j = 0; j < n; j++) sum += a[i * n + j]! * x[j]!;
    out[i] = sum;
  }
  return out;
}

export function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
