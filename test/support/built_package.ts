import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const root = path.join(__dirname, '../..');

/**
 * A folder with lib/ freshly compiled to dist/ and the rest of the package beside it, so that no test depends on a
 * stale dist/.
 */
export function buildPackage(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'cqil-built-'));
  cpSync(path.join(root, 'package.json'), path.join(folder, 'package.json'));
  for (const name of readdirSync(root).filter((entry) => ['node_modules', 'build', 'models'].includes(entry))) {
    symlinkSync(path.join(root, name), path.join(folder, name));
  }
  execFileSync(process.execPath, [
    path.join(root, 'node_modules/typescript/bin/tsc'),
    '-p',
    path.join(root, 'tsconfig.build.json'),
    '--outDir',
    path.join(folder, 'dist'),
    '--declaration',
    'false',
  ]);
  return folder;
}
