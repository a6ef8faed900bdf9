const WINDOW = 5;

/**
 * How much a series of resident bytes grows from one sample to the next: the median growth of the least of five samples
 * to the least of the next five, over the last two thirds. A leak grows from each five to the next. The C library takes
 * and gives back memory in steps of tens of MB, which lie between one five and the next, and garbage that waits for its
 * collection makes a saw, of which only the feet count.
 */
export function growthPerSample(samples: readonly number[]): number {
  const late = samples.slice(Math.floor(samples.length / 3));
  const feet: number[] = [];
  for (let at = 0; at + WINDOW <= late.length; at += WINDOW) feet.push(Math.min(...late.slice(at, at + WINDOW)));
  if (feet.length < 8) throw new Error(`${samples.length} samples are too few to tell a leak from a step`);
  return median(feet.slice(1).map((foot, i) => (foot - feet[i]!) / WINDOW));
}

function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
}
