import { readFileSync, writeFileSync } from 'node:fs';
import { expect } from 'vitest';
import { openCheckpoint } from '../../lib/checkpoint/open.js';

/** Changes the bytes of a file in place. */
export function edit(file: string, change: (bytes: Buffer) => void): string {
  const bytes = readFileSync(file);
  change(bytes);
  writeFileSync(file, bytes);
  return file;
}

export type BrokenCheckpoint = [what: string, make: () => string, code: string, says: string];

/** Opening the checkpoint that `make` makes gives an error of this code, with this text in its message. */
export async function expectRefused(...[, make, code, says]: BrokenCheckpoint): Promise<void> {
  await expect(openCheckpoint(make())).rejects.toMatchObject({
    name: 'CqilError',
    code,
    message: expect.stringContaining(says),
  });
}
