import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

/** Gives the tests a cache of their own, empty at the start, and takes it away after them. */
export default function setUp(): () => void {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'cqil-cache-'));
  process.env.CQIL_CACHE_DIR = folder;
  return () => rmSync(folder, { recursive: true, force: true });
}
