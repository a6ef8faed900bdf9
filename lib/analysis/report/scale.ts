/** Maps values to pixels, linearly or by their logarithm. */
export type Scale = (value: number) => number;

export function linearScale([from, to]: readonly [number, number], [start, end]: readonly [number, number]): Scale {
  return (value) => start + ((value - from) / (to - from)) * (end - start);
}

/** For positive values; others lie at the start. */
export function logScale([from, to]: readonly [number, number], range: readonly [number, number]): Scale {
  const linear = linearScale([Math.log(from), Math.log(to)], range);
  return (value) => (value > from ? linear(Math.log(value)) : range[0]);
}

/** About `wanted` round numbers between two values: multiples of 1, 2 or 5 times a power of ten. */
export function ticks(from: number, to: number, wanted: number): number[] {
  const rough = (to - from) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const interval = power * ([1, 2, 5].find((multiple) => multiple * power >= rough) ?? 10);
  const first = Math.ceil(from / interval - 1e-9);
  const count = Math.floor(to / interval + 1e-9) - first + 1;
  // Division by a power of ten rounds once, where adding up intervals would leave 0.30000000000000004.
  return Array.from({ length: count }, (_, i) => Number(((first + i) * interval).toPrecision(12)));
}

/** The range of some values with a margin on both sides; never empty. */
export function padded(values: readonly number[], margin: number): [number, number] {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const room = most > least ? (most - least) * margin : Math.abs(most) * margin || 1;
  return [least - room, most + room];
}

/** Decimals that tell neighbouring ticks apart. */
export function tickDigits(values: readonly number[]): number {
  const interval = values.length > 1 ? values[1]! - values[0]! : 1;
  return Math.max(0, -Math.floor(Math.log10(interval) + 1e-9));
}
