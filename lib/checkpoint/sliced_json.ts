import type { FileHandle } from 'node:fs/promises';
import { CqilError, type ErrorCode } from '../errors.js';
import type { Pace } from '../pace.js';
import { openFile, readError } from './read_file.js';

// Three times the bytes of the largest tokenizer.json in use, and twice its values.
const MAX_BYTES = 96 * 2 ** 20;
const MAX_VALUES = 1 << 22;
const MAX_DEPTH = 256;

const BYTES_AT_ONCE = 1 << 20;
const VALUES_AT_ONCE = 256;

/** Entries from which on an object becomes a Map, which can be gone through in slices: V8 lists the keys of an object in one piece. */
const LARGE_OBJECT = 4096;

/** Strings from here on share the memory of the text they are cut from, and would keep all of it. */
const SHARED_LENGTH = 13;

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
/** What else may stand for a value; the last three are what Python writes. */
const LITERALS: ReadonlyArray<readonly [spelling: string, value: unknown]> = [
  ['true', true],
  ['false', false],
  ['null', null],
  ['NaN', Number.NaN],
  ['Infinity', Infinity],
  ['-Infinity', -Infinity],
];

/** An array or object that has not ended. `key`: the name of the next value. */
interface Open {
  value: unknown[] | Record<string, unknown> | Map<string, unknown>;
  key: string | undefined;
  entries: number;
}

/**
 * Reads a large JSON file in slices between which the event loop runs; objects of 4,096 entries and more are Maps. Throws FILE_NOT_FOUND, ABORTED, or `code` where the file is no JSON, or has
 * more than 96 MB, 4 million values, or values nested more than 256 deep.
 */
export async function readLargeJson(path: string, code: ErrorCode, pace: Pace): Promise<unknown> {
  const { handle, size } = await openFile(path);
  try {
    if (size > MAX_BYTES) throw new CqilError(code, `${path} is ${size} bytes long; at most ${MAX_BYTES} are expected.`);
    return await parseInSlices(await decode(handle, size, pace), path, code, pace);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ERR_ENCODING_INVALID_ENCODED_DATA') throw new CqilError(code, `${path} is not UTF-8 text.`, { cause });
    throw cause instanceof CqilError ? cause : readError(path, cause);
  } finally {
    await handle.close();
  }
}

async function decode(handle: FileHandle, size: number, pace: Pace): Promise<string> {
  // Drops a byte-order mark, and throws for what is not UTF-8.
  const decoder = new TextDecoder('utf-8', { fatal: true });
  const parts: string[] = [];
  const buffer = Buffer.allocUnsafe(Math.min(size, BYTES_AT_ONCE) || 1);
  for (;;) {
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, null);
    if (bytesRead === 0) break;
    parts.push(decoder.decode(buffer.subarray(0, bytesRead), { stream: true }));
    await pace.step();
  }
  parts.push(decoder.decode());
  return parts.join('');
}

/** Parses JSON as JSON.parse does, in slices, but that objects of 4,096 entries and more are Maps and NaN and Infinity are taken. `source` names it in errors. */
export async function parseInSlices(text: string, source: string, code: ErrorCode, pace: Pace, maxValues = MAX_VALUES): Promise<unknown> {
  const parser = new SlicedParser(text, maxValues, (message) => new CqilError(code, `${source} ${message}`));
  while (!parser.step()) await pace.step();
  return parser.result;
}

class SlicedParser {
  result: unknown;
  private at = 0;
  private values = 0;
  private done = false;
  private readonly open: Open[] = [];
  private backslash = -1;

  constructor(private readonly text: string, private readonly maxValues: number, private readonly fault: (message: string) => CqilError) {}

  /** Takes some values; true when the text has ended. */
  step(): boolean {
    for (let i = 0; i < VALUES_AT_ONCE && !this.done; i++) this.value();
    return this.done;
  }

  /** One value with what surrounds it; an array or object is one when it begins, and has others after. */
  private value(): void {
    const first = this.peek();
    if (++this.values > this.maxValues) throw this.fault(`holds more than ${this.maxValues} values; expected fewer.`);
    if (first === '[' || first === '{') {
      if (this.open.length >= MAX_DEPTH) throw this.fault(`nests values more than ${MAX_DEPTH} deep.`);
      this.at++;
      this.open.push({ value: first === '[' ? [] : {}, key: undefined, entries: 0 });
      if (this.peek() === (first === '[' ? ']' : '}')) {
        this.at++;
        this.add(this.open.pop()!.value);
      } else if (first === '{') this.key();
      return;
    }
    this.add(first === '"' ? this.string() : this.numberOrLiteral());
  }

  /** Puts a value where it belongs, and goes on to where the next one begins. */
  private add(value: unknown): void {
    for (;;) {
      const open = this.open.at(-1);
      if (!open) {
        this.result = value;
        this.done = true;
        if (this.peek() !== '') throw this.unexpected();
        return;
      }
      put(open, value);
      const next = this.peek();
      this.at++;
      if (next === ',') {
        if (!Array.isArray(open.value)) this.key();
        return;
      }
      if (next !== (Array.isArray(open.value) ? ']' : '}')) {
        this.at--;
        throw this.unexpected();
      }
      this.open.pop();
      value = open.value;
    }
  }

  private key(): void {
    if (this.peek() !== '"') throw this.unexpected();
    this.open.at(-1)!.key = this.string();
    if (this.peek() !== ':') throw this.unexpected();
    this.at++;
  }

  private string(): string {
    const { text } = this;
    const start = this.at;
    let end = text.indexOf('"', start + 1);
    if (this.backslash < start) {
      this.backslash = text.indexOf('\\', start);
      if (this.backslash < 0) this.backslash = text.length;
    }
    const isPlain = this.backslash > end;
    while (end >= 0 && !isPlain && isEscaped(text, end)) end = text.indexOf('"', end + 1);
    if (end < 0) throw this.fault('is not valid JSON: a string does not end.');
    this.at = end + 1;
    if (isPlain && end - start <= SHARED_LENGTH) return text.slice(start + 1, end);
    try {
      return JSON.parse(text.slice(start, end + 1)) as string;
    } catch (cause) {
      throw this.fault(`is not valid JSON: ${(cause as Error).message}`);
    }
  }

  private numberOrLiteral(): unknown {
    NUMBER.lastIndex = this.at;
    const number = NUMBER.exec(this.text);
    if (number) {
      this.at += number[0].length;
      return Number(number[0]);
    }
    const literal = LITERALS.find(([spelling]) => this.text.startsWith(spelling, this.at));
    if (!literal) throw this.unexpected();
    this.at += literal[0].length;
    return literal[1];
  }

  /** The next character that is no space; empty at the end. */
  private peek(): string {
    const { text } = this;
    for (;;) {
      const unit = text.charCodeAt(this.at);
      if (unit !== 0x20 && unit !== 0x0a && unit !== 0x0d && unit !== 0x09) break;
      this.at++;
    }
    return text.charAt(this.at);
  }

  private unexpected(): CqilError {
    if (this.text.trim() === '') return this.fault('is not valid JSON: it is empty.');
    const found = this.at < this.text.length ? `unexpected ${JSON.stringify(this.text.charAt(this.at))} at position ${this.at}` : 'unexpected end';
    return this.fault(`is not valid JSON: ${found}.`);
  }
}

function put(open: Open, value: unknown): void {
  if (Array.isArray(open.value)) {
    open.value.push(value);
    return;
  }
  if (++open.entries === LARGE_OBJECT) open.value = new Map(Object.entries(open.value));
  const key = open.key!;
  if (open.value instanceof Map) open.value.set(key, value);
  else if (key === '__proto__') Object.defineProperty(open.value, key, { value, writable: true, enumerable: true, configurable: true });
  else open.value[key] = value;
}

/** Whether an odd number of backslashes stands before a position. */
function isEscaped(text: string, position: number): boolean {
  let before = position;
  while (text.charCodeAt(before - 1) === 0x5c) before--;
  return (position - before) % 2 === 1;
}
