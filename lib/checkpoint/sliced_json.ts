import type { FileHandle } from 'node:fs/promises';
import { CqilError, type ErrorCode } from '../errors.js';
import type { Pace } from '../util/pace.js';
import { openFile, readError } from './read_file.js';

// Three times the bytes of the largest tokenizer.json in use, and twice its values.
const MAX_BYTES = 96 * 2 ** 20;
const MAX_VALUES = 1 << 22;
const MAX_DEPTH = 256;

const BYTES_AT_ONCE = 1 << 20;
const VALUES_AT_ONCE = 256;

/**
 * From this number of entries on an object becomes a Map. V8 lists all keys of an object in one piece, whereas a Map
 * can be iterated in slices.
 */
const LARGE_OBJECT = 4096;

/**
 * V8 lets strings of this length and more share the memory of the text they are cut from: they would keep all of it
 * alive.
 */
const SHARED_LENGTH = 13;

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
/** The values that are spelled as words. The last three are not JSON, but Python writes them. */
const LITERALS: ReadonlyArray<readonly [spelling: string, value: unknown]> = [
  ['true', true],
  ['false', false],
  ['null', null],
  ['NaN', Number.NaN],
  ['Infinity', Infinity],
  ['-Infinity', -Infinity],
];

/** An array or object whose end has not been reached. `key` is the name of the next value in an object. */
interface Open {
  value: unknown[] | Record<string, unknown> | Map<string, unknown>;
  key: string | undefined;
  entries: number;
}

/**
 * Reads a large JSON file in slices, between which the event loop runs. Objects of 4,096 entries and more become Maps.
 *
 * Throws FILE_NOT_FOUND; ABORTED; `code` for a file that is not JSON, has more than 96 MB or 4 million values, or nests
 * values more than 256 deep.
 */
export async function readLargeJson(path: string, code: ErrorCode, pace: Pace): Promise<unknown> {
  const { handle, size } = await openFile(path);
  try {
    if (size > MAX_BYTES)
      throw new CqilError(code, `${path} is ${size} bytes long; at most ${MAX_BYTES} are expected.`);
    return await parseInSlices(await decode(handle, size, pace), path, code, pace);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ERR_ENCODING_INVALID_ENCODED_DATA')
      throw new CqilError(code, `${path} is not UTF-8 text.`, { cause });
    throw cause instanceof CqilError ? cause : readError(path, cause);
  } finally {
    await handle.close();
  }
}

async function decode(handle: FileHandle, size: number, pace: Pace): Promise<string> {
  // Drops a byte-order mark, and throws when bytes are not UTF-8.
  const decoder = new TextDecoder('utf-8', { fatal: true });
  const parts: string[] = [];
  const buffer = Buffer.allocUnsafe(Math.min(size, BYTES_AT_ONCE) || 1);
  for (;;) {
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, null);
    if (bytesRead === 0) break;
    parts.push(decoder.decode(buffer.subarray(0, bytesRead), { stream: true }));
    await pace.pause();
  }
  parts.push(decoder.decode());
  return parts.join('');
}

/**
 * Parses JSON in slices. Unlike JSON.parse, this makes Maps of objects with 4,096 entries and more, and accepts NaN and
 * Infinity. `source` names the text in errors.
 */
export async function parseInSlices(
  text: string,
  source: string,
  code: ErrorCode,
  pace: Pace,
  maxValues = MAX_VALUES,
): Promise<unknown> {
  const parser = new SlicedParser(text, maxValues, (message) => new CqilError(code, `${source} ${message}`));
  while (!parser.advance()) await pace.pause();
  return parser.result;
}

class SlicedParser {
  result: unknown;
  private at = 0;
  private values = 0;
  private done = false;
  private readonly open: Open[] = [];
  private backslash = -1;

  constructor(
    private readonly text: string,
    private readonly maxValues: number,
    private readonly fault: (message: string) => CqilError,
  ) {}

  /** Parses some more values. True when the text has ended. */
  advance(): boolean {
    for (let i = 0; i < VALUES_AT_ONCE && !this.done; i++) this.value();
    return this.done;
  }

  /**
   * Parses one value and the punctuation after it. Of an array or object it parses the beginning only; the values
   * inside are parsed by further calls.
   */
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

  /** Adds a value to the array or object it stands in, and moves on to where the next value begins. */
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

  /** Skips white space and gives the character after it, or an empty string at the end. */
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
    const found =
      this.at < this.text.length
        ? `unexpected ${JSON.stringify(this.text.charAt(this.at))} at position ${this.at}`
        : 'unexpected end';
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
  else if (key === '__proto__')
    Object.defineProperty(open.value, key, { value, writable: true, enumerable: true, configurable: true });
  else open.value[key] = value;
}

/** Whether an odd number of backslashes stands before a position. */
function isEscaped(text: string, position: number): boolean {
  let before = position;
  while (text.charCodeAt(before - 1) === 0x5c) before--;
  return (position - before) % 2 === 1;
}
