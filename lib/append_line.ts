import type { FileHandle } from 'node:fs/promises';
import { CqilError } from './errors.js';

/** Adds a value to a file of JSON lines; `name` is what errors call the file. Throws FILE_NOT_FOUND where it cannot be written, as on a full disk. */
export async function appendLine(file: FileHandle, name: string, value: unknown): Promise<void> {
  try {
    await file.appendFile(`${JSON.stringify(value)}\n`);
  } catch (cause) {
    throw new CqilError('FILE_NOT_FOUND', `${name} cannot be written: ${(cause as Error).message}.`, { cause });
  }
}
