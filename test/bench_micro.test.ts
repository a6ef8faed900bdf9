import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { tempFolder } from './support/temp_folder.js';

describe('the micro-benchmarks', () => {
  const folder = tempFolder();

  it('time everything but the kernels, which need a build of their own', async () => {
    const file = path.join(folder, 'micro.json');
    const script = path.join(__dirname, '../bench/micro/run.mjs');
    const { stdout } = await promisify(execFile)(process.execPath, [
      script,
      '--only',
      'sampler,tokenizer,files,decode',
      '--time',
      '1',
      '--json',
      file,
    ]);
    const { rows } = JSON.parse(readFileSync(file, 'utf8')) as { rows: Array<{ name: string; median: number }> };
    for (const { name } of rows) expect(stdout).toContain(name);
    expect(rows.length).toBeGreaterThan(20);
    expect(rows.filter(({ median }) => !(median > 0))).toEqual([]);
  });
});
