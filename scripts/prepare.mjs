/**
 * Compiles lib/ to dist/ in a checkout. npm also runs this script when it rebuilds a linked package. That may be the
 * package as it is published, with dist/ and without a TypeScript compiler; then there is nothing to do.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '..');
const built = existsSync(path.join(root, 'dist/index.js'));
const tsc = resolveTsc();

if (existsSync(path.join(root, 'tsconfig.build.json')) && tsc !== undefined) {
  process.exitCode =
    spawnSync(process.execPath, [tsc, '-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' }).status ?? 1;
} else if (!built) {
  process.stderr.write(
    'cqil: dist/ is not there and there is no TypeScript to make it with: run "npm install" in a checkout, or ' +
      'install the published package.\n',
  );
  process.exitCode = 1;
}

/** The path of the TypeScript compiler, in the version that package.json asks for; undefined when there is none. */
function resolveTsc() {
  try {
    const require = createRequire(path.join(root, 'package.json'));
    const manifest = require.resolve('typescript/package.json');
    const wanted = require('./package.json').devDependencies.typescript;
    return require(manifest).version === wanted ? path.join(path.dirname(manifest), 'bin/tsc') : undefined;
  } catch {
    return undefined;
  }
}
