import { CqilError } from '../errors.js';

/** Bounds of a number; both ends included. */
export interface Range {
  min: number;
  max: number;
}

/**
 * Named values of a configuration whose types are unknown until read: config.json or GGUF metadata. A null counts as
 * absent, as in Python's JSON. A value of the wrong type or out of range throws INVALID_CHECKPOINT naming the key.
 */
export class Fields {
  constructor(
    private readonly get: (key: string) => unknown,
    private readonly source: string,
  ) {}

  static ofJson(json: unknown, source: string): Fields {
    if (typeof json !== 'object' || json === null || Array.isArray(json)) {
      throw new CqilError('INVALID_CHECKPOINT', `${source} is ${show(json)}; a JSON object is expected.`);
    }
    const entries = new Map(Object.entries(json));
    return new Fields((key) => entries.get(key), source);
  }

  /** The value as it stands; undefined when absent or null. */
  raw(key: string): unknown {
    return this.get(key) ?? undefined;
  }

  /** Whether a null stands there, which in some keys switches off what an absent one leaves at its default. */
  isNull(key: string): boolean {
    return this.get(key) === null;
  }

  has(key: string): boolean {
    return this.raw(key) !== undefined;
  }

  integer(key: string, range: Range, fallback?: number): number {
    return this.read(
      key,
      fallback,
      `a whole number from ${range.min} to ${range.max}`,
      (value): value is number => Number.isInteger(value) && within(value as number, range),
    );
  }

  /** A finite number. */
  number(key: string, range: Range, fallback?: number): number {
    return this.read(
      key,
      fallback,
      `a number from ${range.min} to ${range.max}`,
      (value): value is number => Number.isFinite(value) && within(value as number, range),
    );
  }

  /** A list of this many finite numbers. */
  numbers(key: string, range: Range, length: number): number[] {
    return this.read<number[]>(
      key,
      undefined,
      `a list of ${length} numbers from ${range.min} to ${range.max}`,
      (value): value is number[] =>
        Array.isArray(value) &&
        value.length === length &&
        value.every((item) => Number.isFinite(item) && within(item as number, range)),
    );
  }

  boolean(key: string, fallback?: boolean): boolean {
    return this.read(key, fallback, 'true or false', (value): value is boolean => typeof value === 'boolean');
  }

  string(key: string, fallback?: string): string {
    return this.read(key, fallback, 'a string', (value): value is string => typeof value === 'string');
  }

  /** A nested JSON object, or undefined. */
  object(key: string): Fields | undefined {
    const value = this.raw(key);
    return value === undefined ? undefined : Fields.ofJson(value, `"${key}" of ${this.source}`);
  }

  invalid(problem: string): CqilError {
    return new CqilError('INVALID_CHECKPOINT', `${this.source} ${problem}.`);
  }

  unsupported(problem: string): CqilError {
    return new CqilError('UNSUPPORTED_MODEL', `${this.source} ${problem}.`);
  }

  private read<T>(key: string, fallback: T | undefined, expected: string, valid: (value: unknown) => value is T): T {
    const value = this.raw(key);
    if (value === undefined) {
      if (fallback === undefined) throw this.invalid(`has no "${key}"; ${expected} is expected`);
      return fallback;
    }
    if (!valid(value)) throw this.invalid(`has "${key}": ${show(value)}; ${expected} is expected`);
    return value;
  }
}

function within(value: number, range: Range): boolean {
  return value >= range.min && value <= range.max;
}

/** A value in an error message, cut to a readable length. */
export function show(value: unknown): string {
  const text =
    typeof value === 'bigint' || typeof value === 'number'
      ? String(value)
      : Object(value) === value
        ? kindOf(value as object)
        : (JSON.stringify(value) ?? 'undefined');
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

// Not spelled out: an array from a file may have millions of elements.
function kindOf(value: object): string {
  return Array.isArray(value) || ArrayBuffer.isView(value)
    ? `an array of ${(value as ArrayLike<unknown>).length}`
    : 'an object';
}
