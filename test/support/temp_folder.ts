import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll } from 'vitest';

/** A new folder that is removed after the suite's last test. */
export function tempFolder(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'cqil-test-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}
