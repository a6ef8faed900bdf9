// Builds the native tests with CMake and runs them; says so and passes where there is no CMake.
import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';

const run = (command, args) => spawnSync(command, args, { stdio: 'inherit' }).status ?? 1;

if (spawnSync('cmake', ['--version']).error) {
  console.log('skipped: native tests: cmake is not installed');
  process.exit(0);
}
const build = 'build-native';
process.exitCode =
  run('cmake', ['-S', '.', '-B', build, '-DCMAKE_BUILD_TYPE=Release', ...process.argv.slice(2)]) ||
  run('cmake', ['--build', build, '--parallel', String(availableParallelism())]) ||
  run('ctest', ['--test-dir', build, '--output-on-failure', '--parallel', String(availableParallelism())]);
