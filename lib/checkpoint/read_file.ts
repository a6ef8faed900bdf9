import { open, stat, type FileHandle } from 'node:fs/promises';
import { CqilError, type ErrorCode } from '../errors.js';

// Far above any real configuration or tokenizer (the largest take about 30 MB).
const MAX_TEXT_BYTES = 256 * 2 ** 20;

/** What a failed file-system call means to the caller: FILE_NOT_FOUND, with the system's own reason. */
export function readError(path: string, cause: unknown): CqilError {
  const code = (cause as NodeJS.ErrnoException).code;
  const reason = code === 'ENOENT' ? 'does not exist' : `cannot be read (${code ?? String(cause)})`;
  return new CqilError('FILE_NOT_FOUND', `${path} ${reason}.`, { cause });
}

/** Opens a regular file for reading. Throws FILE_NOT_FOUND; anything else (a folder, a pipe that would block) counts as not found. */
export async function openFile(path: string): Promise<{ handle: FileHandle; size: number }> {
  try {
    const stats = await stat(path);
    if (!stats.isFile()) throw new CqilError('FILE_NOT_FOUND', `${path} is not a regular file.`);
    return { handle: await open(path, 'r'), size: stats.size };
  } catch (cause) {
    throw cause instanceof CqilError ? cause : readError(path, cause);
  }
}

/** A UTF-8 file's text, or undefined where there is no such path. Other failures throw FILE_NOT_FOUND, oversize INVALID_CHECKPOINT. */
export async function readText(path: string): Promise<string | undefined> {
  if (!(await exists(path))) return undefined;
  const { handle, size } = await openFile(path);
  try {
    if (size > MAX_TEXT_BYTES) throw new CqilError('INVALID_CHECKPOINT', `${path} is ${size} bytes long; at most ${MAX_TEXT_BYTES} are expected.`);
    return await handle.readFile('utf8');
  } catch (cause) {
    throw cause instanceof CqilError ? cause : readError(path, cause);
  } finally {
    await handle.close();
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw readError(path, cause);
  }
}

/** A parsed JSON file, or undefined where there is no such file. Throws `code` where it is not JSON. */
export async function readJson(path: string, code: ErrorCode = 'INVALID_CHECKPOINT'): Promise<unknown> {
  const text = await readText(path);
  return text === undefined ? undefined : parseJson(text, path, code);
}

/** Parses JSON; `source` names it in the error thrown when it is malformed. */
export function parseJson(text: string, source: string, code: ErrorCode = 'INVALID_CHECKPOINT'): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new CqilError(code, `${source} is not valid JSON: ${(cause as Error).message}`, { cause });
  }
}
