import type { FileHandle } from 'node:fs/promises';
import { CqilError } from '../errors.js';
import { EncodedStrings } from './encoded_strings.js';
import { openFile, readError } from './read_file.js';

const WINDOW_BYTES = 2 ** 20;

/**
 * Reads little-endian values of a file in order through one window, so that only what is read is in memory. Every
 * length is checked against the bytes left before anything is allocated for it. `what` names the value in error messages.
 */
export class ByteReader {
  /** Bytes that may be read: the file's size or the limit given to `open`, whichever is less. */
  readonly limit: number;
  private window: Buffer = Buffer.alloc(0);
  /** The window as numbers. */
  private view = new DataView(new ArrayBuffer(0));
  /** Bytes of the window already consumed. */
  private cursor = 0;

  /** `windowStart` is where in the file the window begins. */
  private constructor(readonly path: string, private readonly handle: FileHandle, readonly size: number, maxBytes: number, private windowStart: number) {
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

  async u32(what: string): Promise<number> {
    return (await this.take(4, what)).getUint32(0, true);
  }

  /** An unsigned 64-bit integer that must be exact as a number. */
  async size64(what: string): Promise<number> {
    const value = (await this.take(8, what)).getBigUint64(0, true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw this.invalid(`gives ${value} for ${what}`);
    return Number(value);
  }

  /** A 64-bit count of things that take at least `minBytes` each: more than the bytes left could hold is refused. */
  async count(what: string, minBytes: number): Promise<number> {
    const count = await this.size64(`the number of ${what}`);
    const left = this.limit - this.position;
    if (count > left / minBytes) throw this.invalid(`announces ${count} ${what}, more than the ${left} bytes left ${this.where()} can hold`);
    return count;
  }

  /** A 64-bit length and that many bytes of UTF-8. */
  async string(maxBytes: number, what: string): Promise<string> {
    const length = await this.size64(`the length of ${what}`);
    if (length > maxBytes) throw this.invalid(`gives ${what} a length of ${length} bytes, more than ${maxBytes}`);
    await this.fill(length, what);
    return this.text(length);
  }

  /** `length` strings in a row, which are not decoded. Those in the window are passed without awaiting: a vocabulary has 100,000 and more. */
  async strings(length: number, what: string): Promise<EncodedStrings> {
    const parts: Buffer[] = [];
    let start = this.cursor;
    for (let i = 0; i < length; i++) {
      if (this.skipStringInWindow()) continue;
      parts.push(this.window.subarray(start, this.cursor));
      const element = `an element of ${what}`;
      await this.fill(8, element);
      const bytes = this.view.getBigUint64(this.cursor, true);
      if (bytes > this.limit) throw this.invalid(`gives ${element} a length of ${bytes} bytes, more than ${this.limit}`);
      await this.fill(8 + Number(bytes), element);
      start = this.cursor;
      this.cursor += 8 + Number(bytes);
    }
    parts.push(this.window.subarray(start, this.cursor));
    return new EncodedStrings(length, parts);
  }

  private skipStringInWindow(): boolean {
    const available = this.window.length - this.cursor;
    if (available < 8 || this.view.getUint32(this.cursor + 4, true) !== 0) return false;
    const bytes = this.view.getUint32(this.cursor, true);
    if (available - 8 < bytes) return false;
    this.cursor += 8 + bytes;
    return true;
  }

  private text(length: number): string {
    const text = this.window.toString('utf8', this.cursor, this.cursor + length);
    this.cursor += length;
    return text;
  }

  /** The next `length` bytes, valid until the next read. */
  async take(length: number, what: string): Promise<DataView> {
    await this.fill(length, what);
    const view = new DataView(this.window.buffer, this.window.byteOffset + this.cursor, length);
    this.cursor += length;
    return view;
  }

  /** Makes the next `length` bytes stand in the window. */
  private async fill(length: number, what: string): Promise<void> {
    const available = this.window.length - this.cursor;
    if (available >= length) return;
    const left = this.limit - this.position;
    if (length > left) throw this.invalid(`ends before ${what}: ${length} bytes expected, ${left} left ${this.where()}`);
    const position = this.position;
    const next = Buffer.alloc(Math.min(left, Math.max(length, WINDOW_BYTES)));
    this.window.copy(next, 0, this.cursor);
    let filled = available;
    while (filled < next.length) {
      const { bytesRead } = await this.read(next, filled, position + filled);
      if (bytesRead === 0) throw this.invalid(`ended while it was read, at byte ${position + filled}`);
      filled += bytesRead;
    }
    this.window = next;
    this.view = new DataView(next.buffer, next.byteOffset, next.length);
    this.windowStart = position;
    this.cursor = 0;
  }

  private async read(target: Buffer, offset: number, position: number): Promise<{ bytesRead: number }> {
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
