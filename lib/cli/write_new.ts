import { writeFile } from 'node:fs/promises';
import { CqilError } from '../errors.js';

/**
 * Writes a file that must not exist yet, unless it may be overwritten. Throws INVALID_ARGUMENT, or FILE_NOT_FOUND where
 * none can be.
 */
export async function writeNew(file: string, text: string, overwrite: boolean): Promise<void> {
  try {
    await writeFile(file, text, { flag: overwrite ? 'w' : 'wx' });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST') throw existsAlready(file, cause);
    throw new CqilError('FILE_NOT_FOUND', `The file ${file} cannot be written: ${(cause as Error).message}.`, {
      cause,
    });
  }
}

export function existsAlready(file: string, cause?: unknown): CqilError {
  return new CqilError('INVALID_ARGUMENT', `The file ${file} exists already; --force overwrites it.`, { cause });
}
