import type { FileHandle } from 'node:fs/promises';
import { CqilError } from '../errors.js';
import { EncodedStrings } from './encoded_strings.js';
import { openFile, readError } from './read_file.js';

const WINDOW_BYTES = 2 ** 20;

/**
 * Reads little-endian values of a file in order through one window, so that only what is read is in memory. `reach` and
 * what else is awaited moves the window; small values are then read from it without awaiting, which would take far
 * longer than reading them. Every length is checked against the bytes left before anything is allocated for it. `what`
 * names the value in error messages.
 */
export class ByteReader {
  /** Bytes that may be read: the file's size or the limit given to `open`, whichever is less. */
  readonly limit: number;
  private window: Buffer = Buffer.alloc(0);
  /** The window as numbers. */
  private numbers = new DataView(new ArrayBuffer(0));
  /** Bytes of the window already consumed. */
  private cursor = 0;

  /** `windowStart` is where in the file the window begins. */
  private constructor(
    readonly path: string,
    private readonly handle: FileHandle,
    readonly size: number,
    maxBytes: number,
    private windowStart: number,
  ) {
    this.limit = Math.min(size, maxBytes);
  }

  /** Opens a regular file to be read from byte `start` up to byte `maxBytes`. Throws FILE_NOT_FOUND. */
  static async open(path: string, maxBytes: number, start = 0): Promise<ByteReader> {
    const { handle, size } = await openFile(path);
    return new ByteReader(path, handle, size, maxBytes, start);
  }

  close(): Promise<void> {
    return this.handle.close();
  }

  /** Bytes consumed so far. */
  get position(): number {
    return this.windowStart + this.cursor;
  }

  /** Makes the next `length` bytes stand in the window, or all that are left. */
  async reach(length: number): Promise<void> {
    await this.fill(Math.min(length, this.left));
  }

  /** The next `length` bytes, which stand in the window; valid until it moves. */
  view(length: number, what: string): DataView {
    if (length > this.window.length - this.cursor)
      throw this.invalid(`ends before ${what}: ${length} bytes expected, ${this.left} left ${this.where()}`);
    const view = new DataView(this.window.buffer, this.window.byteOffset + this.cursor, length);
    this.cursor += length;
    return view;
  }

  /** The next bytes, which may have to be read first. */
  async read(length: number, what: string): Promise<DataView> {
    if (length <= this.left) await this.fill(length);
    return this.view(length, what);
  }

  u32(what: string): number {
    return this.view(4, what).getUint32(0, true);
  }

  /** An unsigned 64-bit integer that must be exact as a number. */
  size64(what: string): number {
    const view = this.view(8, what);
    const value = view.getUint32(0, true) + 2 ** 32 * view.getUint32(4, true);
    if (!Number.isSafeInteger(value)) throw this.invalid(`gives ${view.getBigUint64(0, true)} for ${what}`);
    return value;
  }

  /** A 64-bit count of things that take at least `minBytes` each: more than the bytes left could hold is refused. */
  count(what: string, minBytes: number): number {
    const count = this.size64(`the number of ${what}`);
    if (count > this.left / minBytes)
      throw this.invalid(`announces ${count} ${what}, more than the ${this.left} bytes left ${this.where()} can hold`);
    return count;
  }

  /** A 64-bit length and that many bytes of UTF-8, both in the window. */
  name(maxBytes: number, what: string): string {
    return textOf(this.view(this.textLength(maxBytes, what), what));
  }

  /** Takes a string of any length. */
  async string(what: string): Promise<string> {
    return textOf(await this.read(this.textLength(this.limit, what), what));
  }

  /**
   * `length` strings in a row, which are not decoded. Those in the window are passed without awaiting: a vocabulary has
   * 100,000 and more.
   */
  async strings(length: number, what: string): Promise<EncodedStrings> {
    const parts: Buffer[] = [];
    let start = this.cursor;
    for (let i = 0; i < length; i++) {
      if (this.skipStringInWindow()) continue;
      parts.push(this.window.subarray(start, this.cursor));
      const element = `an element of ${what}`;
      await this.reach(8);
      const bytes = 8 + this.textLength(this.limit, element);
      this.cursor -= 8;
      await this.read(bytes, element);
      start = this.cursor - bytes;
    }
    parts.push(this.window.subarray(start, this.cursor));
    return new EncodedStrings(length, parts);
  }

  private skipStringInWindow(): boolean {
    const available = this.window.length - this.cursor;
    if (available < 8 || this.numbers.getUint32(this.cursor + 4, true) !== 0) return false;
    const bytes = this.numbers.getUint32(this.cursor, true);
    if (available - 8 < bytes) return false;
    this.cursor += 8 + bytes;
    return true;
  }

  private textLength(maxBytes: number, what: string): number {
    const length = this.size64(`the length of ${what}`);
    if (length > maxBytes) throw this.invalid(`gives ${what} a length of ${length} bytes, more than ${maxBytes}`);
    return length;
  }

  /** Bytes that may still be read. */
  private get left(): number {
    return this.limit - this.position;
  }

  private async fill(length: number): Promise<void> {
    const available = this.window.length - this.cursor;
    if (available >= length) return;
    const position = this.position;
    const next = Buffer.alloc(Math.min(this.left, Math.max(length, WINDOW_BYTES)));
    this.window.copy(next, 0, this.cursor);
    let filled = available;
    while (filled < next.length) {
      const { bytesRead } = await this.readAt(next, filled, position + filled);
      if (bytesRead === 0) throw this.invalid(`ended while it was read, at byte ${position + filled}`);
      filled += bytesRead;
    }
    this.window = next;
    this.numbers = new DataView(next.buffer, next.byteOffset, next.length);
    this.windowStart = position;
    this.cursor = 0;
  }

  private async readAt(target: Buffer, offset: number, position: number): Promise<{ bytesRead: number }> {
    try {
      return await this.handle.read(target, offset, target.length - offset, position);
    } catch (cause) {
      throw readError(this.path, cause);
    }
  }

  private where(): string {
    return this.limit < this.size ? `of the ${this.limit} that a header may take` : 'in the file';
  }

  /** An INVALID_CHECKPOINT whose subject is this file. */
  invalid(problem: string): CqilError {
    return new CqilError('INVALID_CHECKPOINT', `${this.path} ${problem}.`);
  }
}

function textOf({ buffer, byteOffset, byteLength }: DataView): string {
  return Buffer.from(buffer, byteOffset, byteLength).toString('utf8');
}
