import { open, stat, type FileHandle } from 'node:fs/promises';
import { CqilError, type ErrorCode } from '../errors.js';
import { countContainers, utf8Text, parseJson } from '../util/json.js';

// Far above any real vocabulary or list of merges.
const MAX_TEXT_BYTES = 256 * 2 ** 20;
// JSON is parsed in one piece, which holds the event loop. The largest such file of a published model is the index of
// DeepSeek-V3, of 9 MB; the most arrays and objects are Gemma 3's 6,414 added tokens.
const MAX_JSON_BYTES = 16 * 2 ** 20;
const MAX_CONTAINERS = 2 ** 16;

/** What a failed file-system call means to the caller: FILE_NOT_FOUND, with the system's own reason. */
export function readError(path: string, cause: unknown): CqilError {
  const code = (cause as NodeJS.ErrnoException).code;
  const reason = code === 'ENOENT' ? 'does not exist' : `cannot be read (${code ?? String(cause)})`;
  return new CqilError('FILE_NOT_FOUND', `${path} ${reason}.`, { cause });
}

/**
 * Opens a regular file for reading. Throws FILE_NOT_FOUND; anything else (a folder, a pipe that would block) counts as
 * not found.
 */
export async function openFile(path: string): Promise<{ handle: FileHandle; size: number }> {
  try {
    const stats = await stat(path);
    if (!stats.isFile()) throw new CqilError('FILE_NOT_FOUND', `${path} is not a regular file.`);
    return { handle: await open(path, 'r'), size: stats.size };
  } catch (cause) {
    throw cause instanceof CqilError ? cause : readError(path, cause);
  }
}

/**
 * A UTF-8 file's text, or undefined when there is no such path. Throws `code` for a file that is too long or not UTF-8,
 * and FILE_NOT_FOUND for other failures.
 */
export async function readText(path: string, code: ErrorCode = 'INVALID_CHECKPOINT'): Promise<string | undefined> {
  const bytes = await readBytes(path, code);
  return bytes && utf8Text(bytes, path, code);
}

/**
 * A file's bytes, or undefined when there is no such path. Throws `code` for a file of more than `most` bytes, 256 MB
 * unless it is given, and FILE_NOT_FOUND for other failures.
 */
export async function readBytes(
  path: string,
  code: ErrorCode,
  most: number = MAX_TEXT_BYTES,
): Promise<Buffer | undefined> {
  if (!(await exists(path))) return undefined;
  const { handle, size } = await openFile(path);
  try {
    if (size > most) throw new CqilError(code, `${path} is ${size} bytes long; at most ${most} are expected.`);
    return await handle.readFile();
  } catch (cause) {
    throw cause instanceof CqilError ? cause : readError(path, cause);
  } finally {
    await handle.close();
  }
}

/** Whether there is something at a path. Throws FILE_NOT_FOUND when that cannot be found out. */
export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw readError(path, cause);
  }
}

/**
 * A parsed JSON file, or undefined when there is no such file. Throws `code` when it is not JSON, longer than 16 MB, or
 * holds more than 65,536 arrays and objects.
 */
export async function readJson(path: string, code: ErrorCode = 'INVALID_CHECKPOINT'): Promise<unknown> {
  const bytes = await readBytes(path, code, MAX_JSON_BYTES);
  if (bytes === undefined) return undefined;
  expectFewContainers(bytes, path, code, MAX_CONTAINERS);
  return parseJson(utf8Text(bytes, path, code), path, code);
}

/** Refuses JSON that holds more than `most` arrays and objects, before it is parsed. Throws `code`. */
export function expectFewContainers(bytes: Uint8Array, source: string, code: ErrorCode, most: number): void {
  // Each takes two bytes at least, so most files need not be counted.
  if (bytes.length > 2 * most && countContainers(bytes) > most)
    throw new CqilError(code, `${source} holds more than ${most} arrays and objects; far fewer are expected.`);
}
