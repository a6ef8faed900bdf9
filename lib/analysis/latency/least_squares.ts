const PASSES = 20_000;
/** Changes below this, relative to the largest coefficient, end the search. */
const PRECISION = 1e-12;

/**
 * The x ≥ 0 with the least Σ over rows (rows[i] · x − targets[i])², by coordinate descent on the normal equations:
 * exact in each coordinate, and of few unknowns, so that convergence costs microseconds. Columns are scaled to length 1
 * first. A column of zeros gets 0.
 *
 * @param rows [n][unknowns].
 */
export function nonNegativeLeastSquares(rows: ReadonlyArray<readonly number[]>, targets: readonly number[]): number[] {
  const unknowns = rows[0]!.map((_, i) => i);
  const dot = (a: (row: readonly number[]) => number, b: (row: readonly number[], at: number) => number): number =>
    rows.reduce((sum, row, at) => sum + a(row) * b(row, at), 0);
  const scale = unknowns.map(
    (i) =>
      Math.sqrt(
        dot(
          (row) => row[i]!,
          (row) => row[i]!,
        ),
      ) || 1,
  );
  const gram = unknowns.map((i) =>
    unknowns.map(
      (j) =>
        dot(
          (row) => row[i]!,
          (row) => row[j]!,
        ) /
        scale[i]! /
        scale[j]!,
    ),
  );
  const right = unknowns.map(
    (i) =>
      dot(
        (row) => row[i]!,
        (_, at) => targets[at]!,
      ) / scale[i]!,
  );
  const x = unknowns.map(() => 0);
  for (let pass = 0; pass < PASSES; pass++) {
    let change = 0;
    for (const i of unknowns) {
      if (gram[i]![i] === 0) continue;
      const rest = right[i]! - unknowns.reduce((sum, j) => (j === i ? sum : sum + gram[i]![j]! * x[j]!), 0);
      const next = Math.max(0, rest / gram[i]![i]!);
      change = Math.max(change, Math.abs(next - x[i]!));
      x[i] = next;
    }
    if (change <= PRECISION * Math.max(...x)) break;
  }
  return x.map((value, i) => value / scale[i]!);
}
