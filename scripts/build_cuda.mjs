// Builds the CUDA backend library into build-cuda/ with CMake and nvcc. With --if-possible it says what is missing and
// passes.
import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { recordRun } from './skips.mjs';

const run = (command, args) => spawnSync(command, args, { stdio: 'inherit' }).status ?? 1;

const missing = ['cmake', 'nvcc'].filter((tool) => spawnSync(tool, ['--version']).error);
if (missing.length > 0) {
  const reason = `${missing.join(' and ')} cannot be run`;
  if (process.argv.includes('--if-possible')) {
    recordRun({ passed: 0, failed: 0, skipped: [{ what: 'building the CUDA library', reason, tests: 1 }] });
    process.exit();
  }
  console.log(`failed: the CUDA library: ${reason}`);
  process.exit(1);
}
const build = 'build-cuda';
process.exitCode =
  run('cmake', ['-S', '.', '-B', build, '-DCQIL_CUDA=ON', '-DCMAKE_BUILD_TYPE=Release']) ||
  run('cmake', ['--build', build, '--target', 'cqil_cuda', '--parallel', String(availableParallelism())]);
