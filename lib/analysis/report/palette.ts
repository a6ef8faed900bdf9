import type { PhaseKind } from '../../engine/native.js';

/**
 * Colours of phases, told apart with any of the common colour blindnesses: after Masataka Okabe and Kei Ito, "Color
 * Universal Design", 2008. `text` is what is readable on them.
 */
export const PHASE_COLOURS: ReadonlyArray<readonly [kind: PhaseKind, fill: string, text: string]> = [
  ['embed', '#9aa0a8', '#14161a'],
  ['qkv', '#56b4e9', '#14161a'],
  ['attention', '#e69f00', '#14161a'],
  ['attention_out', '#f0e442', '#14161a'],
  ['gate_up', '#009e73', '#14161a'],
  ['down', '#0072b2', '#ffffff'],
  ['head', '#cc79a7', '#14161a'],
];

/** Colours of the heat map. */
export const HEAT_LEVELS = 20;

type Rgb = readonly [number, number, number];
/** From unlike to alike: towards ink on a light page, towards light on a dark one. */
const HEAT_LIGHT: readonly Rgb[] = [
  [244, 239, 228],
  [190, 220, 208],
  [92, 174, 194],
  [42, 104, 172],
  [24, 32, 92],
];
const HEAT_DARK: readonly Rgb[] = [
  [30, 33, 40],
  [38, 62, 112],
  [42, 124, 166],
  [100, 196, 166],
  [246, 234, 140],
];

/** The heat map's colours in CSS. */
export function heatColours(theme: 'light' | 'dark'): string[] {
  const stops = theme === 'light' ? HEAT_LIGHT : HEAT_DARK;
  return Array.from({ length: HEAT_LEVELS }, (_, level) => {
    const place = (level / (HEAT_LEVELS - 1)) * (stops.length - 1);
    const below = Math.min(Math.floor(place), stops.length - 2);
    const mixed = stops[below]!.map((value, i) =>
      Math.round(value + (stops[below + 1]![i]! - value) * (place - below)),
    );
    return `rgb(${mixed.join(' ')})`;
  });
}
