import { existsSync, statSync } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { CqilError } from '../errors.js';
import { absolutePath } from '../util/location.js';
import { existsAlready } from './write_new.js';

/** A file to be written. */
export interface OutputFile {
  file: string;
  text: string;
}

/**
 * Throws what `writeFiles` would, as far as it can be known before the work is done: INVALID_ARGUMENT or
 * FILE_NOT_FOUND.
 */
export function expectWritable(files: readonly string[], overwrite: boolean): void {
  for (const [index, file] of files.entries()) {
    if (files.slice(0, index).some((other) => absolutePath(other, 'The output') === absolutePath(file, 'The output')))
      throw new CqilError('INVALID_ARGUMENT', `Two outputs go to ${file}; expected different files.`);
    if (existsSync(file)) {
      if (!statSync(file).isFile())
        throw new CqilError('FILE_NOT_FOUND', `The file ${file} cannot be written: it is not a regular file.`);
      if (!overwrite) throw existsAlready(file);
    }
    const folder = path.dirname(file);
    if (!existsSync(folder) || !statSync(folder).isDirectory())
      throw new CqilError('FILE_NOT_FOUND', `The file ${file} cannot be written: there is no folder ${folder}.`);
  }
}

/**
 * Writes files, all of them or none: each is written in full beside its place before any is put there. Throws as
 * `expectWritable` does.
 */
export async function writeFiles(files: readonly OutputFile[], overwrite: boolean): Promise<void> {
  expectWritable(
    files.map(({ file }) => file),
    overwrite,
  );
  const parts: Array<{ part: string; file: string }> = [];
  let current = '';
  try {
    for (const { file, text } of files) {
      current = file;
      const part = `${file}.${process.pid}.part`;
      const handle = await open(part, 'wx');
      parts.push({ part, file });
      try {
        await handle.writeFile(text);
      } finally {
        await handle.close();
      }
    }
    for (const { part, file } of parts) {
      current = file;
      await rename(part, file);
    }
  } catch (cause) {
    for (const { part } of parts) await rm(part, { force: true });
    throw new CqilError('FILE_NOT_FOUND', `The file ${current} cannot be written: ${(cause as Error).message}.`, {
      cause,
    });
  }
}
