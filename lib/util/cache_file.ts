import { mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { digest } from './digest.js';

/** What a cached value depends on; compared as JSON. */
export type CacheIdentity = Readonly<Record<string, unknown>>;

const MAX_BYTES = 1 << 20;

/**
 * Where measurements of this machine are kept: `CQIL_CACHE_DIR`, or `cqil` in the platform's folder for caches. Nothing
 * in it is ever needed: it can be deleted, read-only or absent.
 */
export function cacheFolder(
  env: Readonly<Record<string, string | undefined>> = process.env,
  platform: string = process.platform,
): string {
  if (env.CQIL_CACHE_DIR) return path.resolve(env.CQIL_CACHE_DIR);
  const home = os.homedir();
  if (platform === 'win32') return path.join(env.LOCALAPPDATA || path.join(home, 'AppData', 'Local'), 'cqil', 'Cache');
  if (platform === 'darwin') return path.join(home, 'Library', 'Caches', 'cqil');
  // The XDG specification has relative paths ignored.
  const base =
    env.XDG_CACHE_HOME && path.isAbsolute(env.XDG_CACHE_HOME) ? env.XDG_CACHE_HOME : path.join(home, '.cache');
  return path.join(base, 'cqil');
}

/** The file of a kind of value, one for each identity. */
export function cacheFile(kind: string, identity: CacheIdentity): string {
  return path.join(cacheFolder(), `${kind}-${digest(identity)}.json`);
}

/** What was written for this identity; undefined when there is none, or a file that is damaged or of something else. */
export async function readCache(kind: string, identity: CacheIdentity): Promise<unknown> {
  const file = cacheFile(kind, identity);
  try {
    if ((await stat(file)).size > MAX_BYTES) return undefined;
    const found = Object(JSON.parse(await readFile(file, 'utf8'))) as { identity?: unknown; value?: unknown };
    return JSON.stringify(found.identity) === JSON.stringify(identity) ? found.value : undefined;
  } catch {
    return undefined;
  }
}

/** Replaces the file at once and as a whole. Gives whether it could: a cache that cannot be written is done without. */
export async function writeCache(kind: string, identity: CacheIdentity, value: unknown): Promise<boolean> {
  const file = cacheFile(kind, identity);
  const part = `${file}.${process.pid}-${Date.now().toString(36)}.part`;
  try {
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
    await rm(part, { force: true }).catch(() => undefined);
    return false;
  }
}
