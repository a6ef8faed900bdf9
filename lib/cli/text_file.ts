import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { CqilError } from '../errors.js';
import { pathOf } from '../util/location.js';
import { decodeText, MAX_TEXT_BYTES } from './io.js';

/** A text, and what tells it from others. */
export interface TextFile {
  text: string;
  /** The first 12 hexadecimal digits of the file's SHA-256. */
  sha256: string;
}

/** Where the text that comes with a model lies, if it has one: held out of its training, to measure on. */
export function textBeside(model: string): string {
  return path.join(/\.(gguf|safetensors|json)$/i.test(model) ? path.dirname(model) : model, 'heldout.txt');
}

/** How bzip2 and gzip files start, in hexadecimal. */
const COMPRESSED = [/^425a683[1-9]314159265359/, /^1f8b/];

/** The text of a file; refuses one that cannot be text. */
export async function readText(file: string): Promise<string> {
  return (await readTextFile(file)).text;
}

export async function readTextFile(location: string): Promise<TextFile> {
  const file = pathOf(location, 'The path of the text');
  const bytes = await readBytes(file);
  const start = bytes.toString('hex', 0, 10);
  if (COMPRESSED.some((magic) => magic.test(start)))
    throw new CqilError('INVALID_ARGUMENT', `The text ${file} is compressed, expected it unpacked.`);
  return {
    text: decodeText(bytes, `The text ${file}`),
    sha256: createHash('sha256').update(bytes).digest('hex').slice(0, 12),
  };
}

async function readBytes(file: string): Promise<Buffer> {
  try {
    const stats = await stat(file);
    if (!stats.isFile()) throw new CqilError('FILE_NOT_FOUND', `The text ${file} is not a regular file.`);
    if (stats.size > MAX_TEXT_BYTES)
      throw new CqilError(
        'INVALID_ARGUMENT',
        `The text ${file} has ${stats.size} bytes, expected at most ${MAX_TEXT_BYTES}.`,
      );
    return await readFile(file);
  } catch (error) {
    if (error instanceof CqilError) throw error;
    throw new CqilError('FILE_NOT_FOUND', `The text ${file} cannot be read: ${(error as Error).message}.`, {
      cause: error,
    });
  }
}
