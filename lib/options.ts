import { inspect } from 'node:util';
import { CqilError } from './errors.js';

/** Throws INVALID_ARGUMENT unless `ok`: what the option is and what was expected. */
export function expectOption(name: string, found: unknown, ok: boolean, expected: string): void {
  if (!ok) throw new CqilError('INVALID_ARGUMENT', `${name} is ${inspect(found, { depth: 0 })}; expected ${expected}.`);
}

/** Refuses an options object that is none, or that has a name nobody reads, with the nearest known one as a suggestion. */
export function expectOptionNames(call: string, options: object, known: readonly string[]): void {
  expectOption(`The options of ${call}`, options, typeof options === 'object' && options !== null && !Array.isArray(options), 'an object');
  for (const name of Object.keys(options)) {
    if (known.includes(name)) continue;
    const nearest = known.map((other) => ({ other, distance: editDistance(name.toLowerCase(), other.toLowerCase()) })).sort((a, b) => a.distance - b.distance)[0];
    const hint = nearest && nearest.distance <= 1 + name.length / 4 ? `did you mean ${nearest.other}?` : `expected ${known.join(', ')}.`;
    throw new CqilError('INVALID_ARGUMENT', `${call} has no option ${JSON.stringify(name)}; ${hint}`);
  }
}

export function isCount(value: unknown, max = Number.MAX_SAFE_INTEGER): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= max;
}

/** By its shape, since a signal may come from another realm. */
export function isSignal(value: unknown): value is AbortSignal | undefined {
  const { aborted, addEventListener } = Object(value) as Partial<AbortSignal>;
  return value === undefined || (typeof aborted === 'boolean' && typeof addEventListener === 'function');
}

/** Insertions, deletions and replacements that turn `a` into `b` (Levenshtein). */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length]!;
}
