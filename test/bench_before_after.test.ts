import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { tempFolder } from './support/temp_folder.js';

interface Row {
  model: string;
  threads: number;
  sameBits: boolean;
  samples: Record<string, Record<'before' | 'after', number[]>>;
}

describe('the comparison of two checkouts', () => {
  const folder = tempFolder();
  const root = path.join(__dirname, '..');
  const compare = async (...more: string[]): Promise<{ stdout: string; rows: Row[] }> => {
    const script = path.join(root, 'bench/before_after.mjs');
    const args = ['--models', 'shipped', '--threads', '1', '--rounds', '1', '--turns', '2', '--folder', folder];
    const { stdout } = await promisify(execFile)(process.execPath, [script, '--before', root, ...args, ...more]);
    const { rows } = JSON.parse(readFileSync(path.join(folder, 'before-after.json'), 'utf8')) as { rows: Row[] };
    return { stdout, rows };
  };

  it('times both sides as often, finds the same bits, and adds rounds to earlier ones', async () => {
    const counts = async (...more: string[]): Promise<object> => {
      const { stdout, rows } = await compare(...more);
      expect(rows).toHaveLength(1);
      expect(rows[0]!.sameBits).toBe(true);
      expect(stdout).toContain('the model that ships | 1 | decode, ms per token');
      return Object.fromEntries(
        Object.entries(rows[0]!.samples).map(([name, { before, after }]) => {
          expect([...before, ...after].filter((ms) => !(ms > 0))).toEqual([]);
          expect(after).toHaveLength(before.length);
          return [name, before.length];
        }),
      );
    };
    expect(await counts()).toEqual({ coldMs: 1, cachedMs: 1, prefillMs: 2, decodeMs: 2 });
    expect(await counts('--more')).toEqual({ coldMs: 2, cachedMs: 2, prefillMs: 4, decodeMs: 4 });
  });
});
