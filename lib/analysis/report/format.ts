const MINUS = '\u2212';
const NARROW_SPACE = '\u202f';

/** A number with `digits` decimals and a true minus sign. */
export function decimals(value: number, digits: number): string {
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? MINUS + text : text;
}

/** A number of nats or milliseconds with three significant digits, at most four decimals. */
export function quantity(value: number): string {
  const digits = value === 0 ? 0 : Math.min(4, Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value)))));
  return decimals(value, digits);
}

/** A share as a percentage. */
export function percent(share: number, digits = 1): string {
  return `${decimals(share * 100, digits)}${NARROW_SPACE}%`;
}

/** A share as a percentage that says its sign, unless it rounds to nothing. */
export function signedPercent(share: number, digits = 1): string {
  const text = percent(share, digits);
  return Number((share * 100).toFixed(digits)) > 0 ? `+${text}` : text;
}

/** A whole number with its thousands apart. */
export function whole(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+$)/g, NARROW_SPACE);
}

/** `n` of something, in the plural where it needs it. */
export function count(n: number, noun: string): string {
  return `${whole(n)} ${noun}${n === 1 ? '' : 's'}`;
}

/** `layer 4` or `layers 4–7`. */
export function layerRange(layers: readonly number[]): string {
  return layers.length === 1 ? `layer ${layers[0]}` : `layers ${layers[0]}–${layers.at(-1)}`;
}

/** A coordinate in a figure: tenths of a pixel are enough. */
export function at(value: number): string {
  return String(Math.round(value * 10) / 10);
}
