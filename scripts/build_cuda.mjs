// Builds the CUDA backend library into build-cuda/ with CMake and nvcc. With --if-possible it says what is missing and passes.
import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';

const run = (command, args) => spawnSync(command, args, { stdio: 'inherit' }).status ?? 1;

const missing = ['cmake', 'nvcc'].filter((tool) => spawnSync(tool, ['--version']).error);
if (missing.length > 0) {
  const possible = process.argv.includes('--if-possible');
  console.log(`${possible ? 'skipped' : 'failed'}: the CUDA library: ${missing.join(' and ')} cannot be run`);
  process.exit(possible ? 0 : 1);
}
const build = 'build-cuda';
process.exitCode =
  run('cmake', ['-S', '.', '-B', build, '-DCQIL_CUDA=ON', '-DCMAKE_BUILD_TYPE=Release']) ||
  run('cmake', ['--build', build, '--target', 'cqil_cuda', '--parallel', String(availableParallelism())]);
