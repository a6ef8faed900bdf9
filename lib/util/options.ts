import { inspect } from 'node:util';
import { CqilError, type ErrorCode } from '../errors.js';

/** Throws INVALID_ARGUMENT unless `ok`: what the option is and what was expected. */
export function expectOption(name: string, found: unknown, ok: boolean, expected: string): void {
  if (!ok) throw new CqilError('INVALID_ARGUMENT', `${name} is ${inspect(found, { depth: 0 })}; expected ${expected}.`);
}

/** Throws INVALID_ARGUMENT unless the option is one of two or more choices. */
export function expectOneOf<T extends string>(name: string, found: string, choices: readonly T[]): asserts found is T {
  const isKnown = choices.some((choice) => choice === found);
  expectOption(name, found, isKnown, `${choices.slice(0, -1).join(', ')} or ${choices.at(-1)}`);
}

/** Throws INVALID_ARGUMENT unless the option is a function, or not given. */
export function expectFunction(name: string, found: unknown): void {
  expectOption(name, found, found === undefined || typeof found === 'function', 'a function');
}

/**
 * What `read` gives. An argument may be a proxy or have getters: where reading it throws, this throws an error with
 * `code`, INVALID_ARGUMENT if there is none.
 */
export function readArgument<T>(name: string, read: () => T, code?: ErrorCode): T {
  try {
    return read();
  } catch (cause) {
    throw unreadable(name, cause, code);
  }
}

/** The error for what was thrown while an argument was read. An error with a code stays as it is. */
export function unreadable(name: string, cause: unknown, code: ErrorCode = 'INVALID_ARGUMENT'): CqilError {
  if (cause instanceof CqilError) return cause;
  const reason = cause instanceof Error ? cause.message : inspect(cause, { depth: 0 });
  return new CqilError(code, `${name} cannot be read (${reason}); expected plain values.`, { cause });
}

/**
 * A copy of the options that a call knows. Refuses an options object that is none, that cannot be read, or that has a
 * name nobody reads, with the nearest known one as a suggestion.
 */
export function readKnownOptions<T extends object>(call: string, options: T, known: readonly string[]): T {
  const name = `The options of ${call}`;
  return readArgument(name, () => {
    expectOption(
      name,
      options,
      typeof options === 'object' && options !== null && !Array.isArray(options),
      'an object',
    );
    expectNames(call, Object.keys(options), known);
    const values = known.map((key) => [key, options[key as keyof T]] as const);
    return Object.fromEntries(values.filter(([, value]) => value !== undefined)) as T;
  });
}

function expectNames(call: string, names: readonly string[], known: readonly string[]): void {
  for (const name of names) {
    if (known.includes(name)) continue;
    const nearest = known
      .map((other) => ({ other, distance: editDistance(name.toLowerCase(), other.toLowerCase()) }))
      .sort((a, b) => a.distance - b.distance)[0];
    const hint =
      nearest && nearest.distance <= 1 + name.length / 4
        ? `did you mean ${nearest.other}?`
        : `expected ${known.join(', ')}.`;
    throw new CqilError('INVALID_ARGUMENT', `${call} has no option ${JSON.stringify(name)}; ${hint}`);
  }
}

export function isCount(value: unknown, max = Number.MAX_SAFE_INTEGER): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= max;
}

/** By its shape, since a signal may come from another realm. */
export function isSignal(value: unknown): value is AbortSignal | undefined {
  return readArgument('The signal', () => {
    const { aborted, addEventListener, removeEventListener } = Object(value) as Partial<AbortSignal>;
    return (
      value === undefined ||
      (typeof aborted === 'boolean' &&
        typeof addEventListener === 'function' &&
        typeof removeEventListener === 'function')
    );
  });
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
