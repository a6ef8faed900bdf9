/** Keeps values above `value`, and the first `ties` of those equal to it. */
interface Cutoff {
  value: number;
  ties: number;
}

/**
 * Compacts the first `count` pairs in place to those the cutoff keeps; returns how many. Lower ids win ties because ids
 * ascend.
 */
export function keepLargest(ids: Int32Array, values: Float64Array, count: number, { value, ties }: Cutoff): number {
  let kept = 0;
  for (let i = 0; i < count; i++) {
    const candidate = values[i]!;
    if (candidate < value || (candidate === value && ties-- <= 0)) continue;
    ids[kept] = ids[i]!;
    values[kept++] = candidate;
  }
  return kept;
}

/** The cutoff that keeps exactly the k largest of all values. `scratch` is as long as `values`. */
export function kthLargest(values: Float64Array, k: number, scratch: Float64Array): Cutoff {
  // Only values above the k-th largest seen so far matter, and soon hardly any are; each time 2k have gathered, k stay.
  const room = Math.min(2 * k, scratch.length);
  let gathered = 0;
  let threshold = -Infinity;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (value <= threshold) continue;
    if (gathered === room) {
      threshold = selectLargest(scratch, gathered, k, false).value;
      gathered = k;
      if (value <= threshold) continue;
    }
    scratch[gathered++] = value;
  }
  return gathered < k ? { value: -Infinity, ties: k - gathered } : selectLargest(scratch, gathered, k, false);
}

/** The cutoff that keeps the fewest largest weights whose sum reaches `share` of the total. */
export function nucleus(
  weights: Float64Array,
  count: number,
  share: number,
  total: number,
  scratch: Float64Array,
): Cutoff {
  // All the weights below this together hold less than the share that may be cut, so the nucleus lies above it.
  const negligible = ((1 - share) * total) / (count + 1);
  let gathered = 0;
  for (let i = 0; i < count; i++) if (weights[i]! >= negligible) scratch[gathered++] = weights[i]!;
  return selectLargest(scratch, gathered, share * total, true);
}

/**
 * The cutoff that keeps the fewest largest of the first `length` values whose count, or sum when `byMass`, reaches
 * `target`. Quickselect with three-way partitions, expected time linear in `length`; reorders `values` and leaves the
 * kept ones in front.
 */
function selectLargest(values: Float64Array, length: number, target: number, byMass: boolean): Cutoff {
  let low = 0;
  let high = length;
  let missing = target;
  for (;;) {
    const pivot = median(values[low]!, values[(low + high) >>> 1]!, values[high - 1]!);
    let above = low;
    let below = high;
    let sum = 0;
    for (let i = low; i < below;) {
      const value = values[i]!;
      if (value > pivot) {
        sum += value;
        values[i++] = values[above]!;
        values[above++] = value;
      } else if (value < pivot) {
        values[i] = values[--below]!;
        values[below] = value;
      } else i++;
    }
    const larger = byMass ? sum : above - low;
    const each = byMass ? pivot : 1;
    const equal = below - above;
    if (larger >= missing && above > low) high = above;
    else if (larger + equal * each >= missing || below === high) {
      return { value: pivot, ties: Math.max(1, Math.ceil((missing - larger) / each)) };
    } else {
      missing -= larger + equal * each;
      low = below;
    }
  }
}

function median(a: number, b: number, c: number): number {
  return Math.max(Math.min(a, b), Math.min(Math.max(a, b), c));
}
