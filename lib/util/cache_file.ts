import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { digest } from './digest.js';
import { absolutePath } from './location.js';

/** What a cached value depends on; compared as JSON. */
export type CacheIdentity = Readonly<Record<string, unknown>>;

const MAX_BYTES = 1 << 20;

/**
 * Where measurements of this machine are kept: `CQIL_CACHE_DIR`, or `cqil` in the platform's folder for caches. Nothing
 * in it is ever needed: it can be deleted, read-only or absent. Undefined where there is no such folder, as for a user
 * who has no home; throws FILE_NOT_FOUND for a relative `CQIL_CACHE_DIR` in a current folder that is gone.
 */
export function cacheFolder(
  env: Readonly<Record<string, string | undefined>> = process.env,
  platform: string = process.platform,
): string | undefined {
  if (env.CQIL_CACHE_DIR) return absolutePath(env.CQIL_CACHE_DIR, 'CQIL_CACHE_DIR');
  if (platform === 'win32') {
    const local = env.LOCALAPPDATA || inHome('AppData', 'Local');
    return local && path.join(local, 'cqil', 'Cache');
  }
  if (platform === 'darwin') return inHome('Library', 'Caches', 'cqil');
  // The XDG specification has relative paths ignored.
  const base = env.XDG_CACHE_HOME && path.isAbsolute(env.XDG_CACHE_HOME) ? env.XDG_CACHE_HOME : inHome('.cache');
  return base && path.join(base, 'cqil');
}

/** A path in the user's home. A user whom the system does not know has none, and an empty HOME names none. */
function inHome(...parts: string[]): string | undefined {
  try {
    const home = os.homedir();
    return path.isAbsolute(home) ? path.join(home, ...parts) : undefined;
  } catch {
    return undefined;
  }
}

/** The file of a kind of value, one for each identity. Undefined, or throws, as `cacheFolder` does. */
export function cacheFile(kind: string, identity: CacheIdentity): string | undefined {
  const folder = cacheFolder();
  return folder && path.join(folder, `${kind}-${digest(identity)}.json`);
}

/** What was written for this identity; undefined when there is none, or a file that is damaged or of something else. */
export async function readCache(kind: string, identity: CacheIdentity): Promise<unknown> {
  try {
    const file = cacheFile(kind, identity);
    if (file === undefined) return undefined;
    if ((await stat(file)).size > MAX_BYTES) return undefined;
    const found = Object(JSON.parse(await readFile(file, 'utf8'))) as { identity?: unknown; value?: unknown };
    return JSON.stringify(found.identity) === JSON.stringify(identity) ? found.value : undefined;
  } catch {
    return undefined;
  }
}

/** Replaces the file at once and as a whole. Gives whether it could: a cache that cannot be written is done without. */
export async function writeCache(kind: string, identity: CacheIdentity, value: unknown): Promise<boolean> {
  let part: string | undefined;
  try {
    const file = cacheFile(kind, identity);
    if (file === undefined) return false;
    part = `${file}.${process.pid}-${Date.now().toString(36)}.part`;
    await mkdir(path.dirname(file), { recursive: true });
    const handle = await open(part, 'wx');
    try {
      await handle.writeFile(`${JSON.stringify({ identity, value })}\n`);
    } finally {
      await handle.close();
    }
    await rename(part, file);
    return true;
  } catch {
    if (part !== undefined) await rm(part, { force: true }).catch(() => undefined);
    return false;
  }
}
