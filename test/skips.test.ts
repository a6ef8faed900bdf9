import { spawnSync } from 'node:child_process';
import { symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { summarize } from '../scripts/skips.mjs';
import { requireAddon } from './support/addon_built.js';
import { tempFolder } from './support/temp_folder.js';

const root = path.join(__dirname, '..');

describe('the last lines of a test run', () => {
  afterEach(() => vi.unstubAllEnvs());

  function summary(reason: string, tests = 1): { ok: boolean; lines: string[] } {
    const lines: string[] = [];
    const runs = [
      { passed: 2, failed: 0, skipped: [] },
      { passed: 3, failed: 0, skipped: [{ what: 'a suite', reason, tests }] },
    ];
    return { ok: summarize(runs, (line) => lines.push(line)), lines };
  }

  it('count what was skipped, by reason', () => {
    vi.stubEnv('CQIL_TESTS', '');
    expect(summary('nvcc cannot be run')).toEqual({
      ok: true,
      lines: ['skipped: 1 test: nvcc cannot be run', '    a suite', '5 passed, 0 failed, 1 skipped'],
    });
    expect(summary('this machine does not run it', 0).lines.at(-1)).toBe('5 passed, 0 failed, 0 skipped');
    expect(summary('the wind')).toMatchObject({
      ok: true,
      lines: [
        'skipped: 1 test: the wind (not on the list of test/allowed_skips.json)',
        '    a suite',
        expect.anything(),
      ],
    });
  });

  it('fail with CQIL_TESTS=all where a reason is not on the list', () => {
    vi.stubEnv('CQIL_TESTS', 'all');
    expect(summary('extra: inputs of others').ok).toBe(true);
    expect(summary('the wind').ok).toBe(false);
    expect(summarize([{ passed: 1, failed: 1, skipped: [] }], () => undefined)).toBe(false);
  });
});

describe('a run of vitest', () => {
  const folder = tempFolder();
  const unless = JSON.stringify(path.join(root, 'test/support/unless.ts'));
  symlinkSync(path.join(root, 'node_modules'), path.join(folder, 'node_modules'), 'junction');
  writeFileSync(
    path.join(folder, 'vitest.config.mjs'),
    `export default { test: { include: ['*.test.ts'], reporters: ` +
      `[${JSON.stringify(path.join(root, 'test/support/skip_reporter.ts'))}] } };`,
  );
  writeFileSync(
    path.join(folder, 'a.test.ts'),
    `import { it } from 'vitest';
     import { describeUnless } from ${unless};
     it('runs', () => undefined);
     describeUnless('extra: none here', 'a suite', () => { it('one', () => undefined); it('two', () => undefined); });
     it('by itself', ({ skip }) => skip(process.env.WHY));
     it.skip('without a reason', () => undefined);`,
  );

  function run(...args: string[]): { status: number | null; stdout: string } {
    const env = { ...process.env, CQIL_TESTS: 'all', WHY: 'nvcc cannot be run' };
    delete (env as Record<string, string | undefined>)['CQIL_TEST_RECORD'];
    return spawnSync(process.execPath, [path.join(root, 'node_modules/vitest/vitest.mjs'), 'run', ...args], {
      cwd: folder,
      env,
      encoding: 'utf8',
    });
  }

  it('names what it skipped, and fails for what nobody allowed', () => {
    const { status, stdout } = run();
    expect(stdout).toContain('skipped: 2 tests: extra: none here\n    a.test.ts: a suite (2)\n');
    expect(stdout).toContain('skipped: 1 test: nvcc cannot be run\n    a.test.ts: by itself\n');
    expect(stdout).toContain(
      'skipped: 1 test: no reason was given (not on the list of test/allowed_skips.json)\n    a.test.ts: without a ' +
        'reason\n',
    );
    expect(stdout).toMatch(/^1 passed, 0 failed, 4 skipped$/m);
    expect(status).toBe(1);
    expect(run('-t', 'runs').status).toBe(0);
  });
});

it('without the addon no test runs', () => {
  expect(() => requireAddon(path.join(root, 'nowhere/cqil.node'))).toThrow(
    /^The tests need the native addon, and .*nowhere.cqil\.node is not there: npm run build:native makes it\.$/,
  );
});
