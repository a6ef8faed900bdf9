import { types } from 'node:util';
import { CqilError } from '../errors.js';
import { unreadable } from '../util/options.js';
import type { Size } from './jinja/budget.js';

// A chat of 1,000 tools takes 50,000 values. Walking through as many as these takes a tenth of a second.
const MAX_VALUES = 1 << 18;
// Four million tokens, about.
const MAX_CHARACTERS = 1 << 24;
const MAX_DEPTH = 500;
const VALUES_AT_ONCE = 256;

/**
 * Copies what a program gives to a chat template: messages, tools and variables. The copy is plain data, so reading it
 * again fails for no proxy or getter, and a program may change what it gave. A value that occurs several times counts
 * each time, because a template sees a tree.
 */
export class ChatData {
  #values = 0;
  #characters = 0;

  /** What was copied so far. */
  get size(): Size {
    return { values: this.#values, characters: this.#characters };
  }

  /**
   * Copies in short slices. Throws INVALID_ARGUMENT for more than 262,144 values or 16 million characters altogether,
   * for values that contain themselves or nest too deep, that are no data, or that cannot be read; `name` names them.
   */
  *copy(value: unknown, name: string): Generator<void, unknown> {
    try {
      return yield* this.#copy(value, name, 0);
    } catch (cause) {
      throw unreadable(name, cause);
    }
  }

  *#copy(value: unknown, name: string, depth: number): Generator<void, unknown> {
    this.#count(1, typeof value === 'string' ? value.length : 0, name);
    if (this.#values % VALUES_AT_ONCE === 0) yield;
    if (typeof value !== 'object' || value === null) {
      if (typeof value === 'function' || typeof value === 'symbol' || typeof value === 'bigint')
        throw noData(name, `a ${typeof value}`);
      return value;
    }
    if (depth >= MAX_DEPTH)
      throw invalid(`${name} nest deeper than ${MAX_DEPTH} levels, or contain themselves; expected plain data.`);
    if (Array.isArray(value)) {
      // Counted before it is walked through: an array without elements may be long.
      if (value.length > MAX_VALUES) this.#count(value.length, 0, name);
      const copy: unknown[] = [];
      for (let i = 0; i < value.length; i++) {
        const item: unknown = value[i];
        // JSON has none; a template would write it as "undefined".
        if (item === undefined) throw noData(name, 'an array with a hole or undefined in it');
        copy.push(yield* this.#copy(item, name, depth + 1));
      }
      return copy;
    }
    const kind = exotic(value);
    if (kind) throw noData(name, `a ${kind}`);
    const entries: Array<[string, unknown]> = [];
    for (const key of Object.keys(value)) {
      this.#count(0, key.length, name);
      entries.push([key, yield* this.#copy((value as Record<string, unknown>)[key], name, depth + 1)]);
    }
    return Object.fromEntries(entries);
  }

  #count(values: number, characters: number, name: string): void {
    this.#values += values;
    this.#characters += characters;
    if (this.#values > MAX_VALUES)
      throw invalid(
        `${name} hold more than ${MAX_VALUES} values; a value that occurs several times counts each time. Expected ` +
          'fewer.',
      );
    if (this.#characters > MAX_CHARACTERS)
      throw invalid(`${name} hold more than ${MAX_CHARACTERS} characters; expected fewer.`);
  }
}

/** What an object is whose contents are not in its properties. */
function exotic(value: object): string | undefined {
  if (types.isDate(value)) return 'Date';
  if (types.isMap(value) || types.isWeakMap(value)) return 'Map';
  if (types.isSet(value) || types.isWeakSet(value)) return 'Set';
  if (types.isRegExp(value)) return 'RegExp';
  if (types.isPromise(value)) return 'Promise';
  if (types.isBoxedPrimitive(value)) return 'boxed primitive';
  return types.isAnyArrayBuffer(value) || ArrayBuffer.isView(value) ? 'buffer' : undefined;
}

function noData(name: string, found: string): CqilError {
  return invalid(`${name} hold ${found}; expected data: texts, numbers, booleans, null, arrays and objects.`);
}

function invalid(message: string): CqilError {
  return new CqilError('INVALID_ARGUMENT', message);
}
