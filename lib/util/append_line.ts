import type { FileHandle } from 'node:fs/promises';
import { CqilError } from '../errors.js';

/**
 * Appends a value to a file of JSON lines; `name` is what errors call the file. Throws FILE_NOT_FOUND when the file
 * cannot be written, for example because the disk is full.
 */
export async function appendLine(file: FileHandle, name: string, value: unknown): Promise<void> {
  try {
    await file.appendFile(`${JSON.stringify(value)}\n`);
  } catch (cause) {
    throw new CqilError('FILE_NOT_FOUND', `${name} cannot be written: ${(cause as Error).message}.`, { cause });
  }
}
