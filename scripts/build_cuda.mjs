// Builds the CUDA backend library into build-cuda/ with CMake and nvcc. With --if-possible it says what is missing and
// passes.
import { buildWithCMake, missingTools } from './cmake.mjs';
import { recordRun } from './skips.mjs';

const missing = missingTools(['cmake', 'nvcc']);
if (missing.length > 0) {
  const reason = `${missing.join(' and ')} cannot be run`;
  if (process.argv.includes('--if-possible')) {
    recordRun({ passed: 0, failed: 0, skipped: [{ what: 'building the CUDA library', reason, tests: 1 }] });
    process.exit();
  }
  console.log(`failed: the CUDA library: ${reason}`);
  process.exit(1);
}
process.exitCode = buildWithCMake('build-cuda', ['-DCQIL_CUDA=ON'], 'cqil_cuda');
