// Configures and builds what CMake makes here, with cmake-js. `binary.napi_versions` in package.json tells cmake-js that
// Node-API is enough, so it downloads no headers of Node.js.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import path from 'node:path';

/** Those of the tools that cannot be run. */
export function missingTools(tools) {
  return tools.filter((tool) => spawnSync(tool, ['--version']).error);
}

/**
 * Builds a target, or all, into a folder. `definitions` are CMake's: `-DNAME=VALUE`; Release is built unless they say
 * otherwise. Gives the exit status of the first command that failed, or 0.
 */
export function buildWithCMake(folder, definitions, target) {
  const program = cmakeJsProgram();
  if (program === undefined) return 1;
  const cmakeJs = (...args) =>
    spawnSync(process.execPath, [program, ...args, '--out', folder, '--log-level', 'warn'], { stdio: 'inherit' })
      .status ?? 1;
  // Make where it is, as CMake itself chooses, so that either may go on with what the other has configured.
  const configure = ['configure', '--prefer-make', ...definitions.map((it) => it.replace(/^-D/, '--CD'))];
  const build = ['build', '--prefer-make', '--parallel', String(availableParallelism())];
  return cmakeJs(...configure) || cmakeJs(...build, ...(target ? ['--target', target] : []));
}

function cmakeJsProgram() {
  try {
    return path.join(path.dirname(createRequire(import.meta.url).resolve('cmake-js/package.json')), 'bin/cmake-js');
  } catch {
    console.log('failed: cmake-js is not installed: npm ci installs it with the other development dependencies');
    return undefined;
  }
}
