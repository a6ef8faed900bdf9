import type { Readable } from 'node:stream';
import { CqilError } from '../errors.js';

/** What a command talks to: the process in the program, strings in a test. */
export interface Io {
  /** Bytes, not text. */
  stdin: Readable;
  /** Writes data. */
  out(text: string): void;
  /** Writes progress, statistics and errors. */
  err(text: string): void;
  /** Where bars are drawn, when there is a terminal to draw them on. */
  terminal?: NodeJS.WriteStream;
  /** Fires when the user interrupts, or nobody reads stdout any more. */
  signal: AbortSignal;
}

/** Prints one JSON document. */
export function printJson(io: Io, value: unknown): void {
  io.out(formatJson(value));
}

/** JSON to be read by people too: indented, with each list of numbers on one line, and a newline at the end. */
export function formatJson(value: unknown): string {
  // A line break never stands inside a JSON string, so this finds lists only.
  const json = JSON.stringify(value, null, 2).replace(
    /\[\n\s+([-+.\deE,\s]*?)\n\s*\]/g,
    (_, numbers: string) => `[${numbers.replace(/\s+/g, ' ')}]`,
  );
  return `${json}\n`;
}

/** The longest text a command reads into memory. */
export const MAX_TEXT_BYTES = 64 << 20;

/** All of stdin as text. Rejects with ABORTED when the user interrupts the wait for it. */
export async function readStdin(io: Io): Promise<string> {
  const interrupt = (): void => void io.stdin.destroy(new CqilError('ABORTED', 'Reading stdin was interrupted.'));
  if (io.signal.aborted) interrupt();
  io.signal.addEventListener('abort', interrupt, { once: true });
  try {
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of io.stdin as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > MAX_TEXT_BYTES)
        throw new CqilError('INVALID_ARGUMENT', `The text on stdin is longer than ${MAX_TEXT_BYTES} bytes.`);
      chunks.push(chunk);
    }
    return decodeText(Buffer.concat(chunks), 'The text on stdin');
  } finally {
    io.signal.removeEventListener('abort', interrupt);
  }
}

/** UTF-8 bytes as text; refuses binary data instead of reading it as replacement characters. */
export function decodeText(bytes: Uint8Array, what: string): string {
  if (bytes.length > MAX_TEXT_BYTES)
    throw new CqilError('INVALID_ARGUMENT', `${what} has ${bytes.length} bytes, expected at most ${MAX_TEXT_BYTES}.`);
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    if (!text.includes('\0')) return text;
  } catch {
    // Reported below, like text with zero bytes.
  }
  throw new CqilError('INVALID_ARGUMENT', `${what} is binary data, expected UTF-8 text.`);
}
