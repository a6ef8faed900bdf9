import { execFileSync, spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '../..');
const build = path.join(root, 'build-native');

/** Builds and runs bench/native/kernels_bench.cc; without CMake, no rows and the reason. */
export function kernelRows() {
  if (spawnSync('cmake', ['--version']).error) return { rows: [], skipped: ['kernels: cmake is not installed'] };
  // The folder may have been configured for sanitizers, which cost more than the kernels do.
  cmake('-S', root, '-B', build, '-DCMAKE_BUILD_TYPE=Release', '-DCQIL_SANITIZE=');
  cmake('--build', build, '--config', 'Release', '--target', 'kernels_bench', '--parallel');
  const result = JSON.parse(execFileSync(path.join(build, 'bench/kernels_bench'), { encoding: 'utf8' }));
  return { rows: result.rows.map((row) => toRow(row, result)), bandwidthGBs: result.bandwidthGBs, skipped: [] };
}

/** What cmake prints goes to stderr. */
function cmake(...args) {
  execFileSync('cmake', args, { stdio: ['ignore', process.stderr, process.stderr] });
}

function toRow({ kernel, dtype, isa, bytes, flops, passes, seconds }, { workingSetBytes, bandwidthGBs }) {
  const [median, min, max] = [seconds.median, seconds.min, seconds.max].map((s) => s * 1e6);
  const row = {
    group: 'kernels',
    name: `${kernel} ${dtype}, ${isa}`,
    per: `${Math.round(workingSetBytes / 2 ** 20)} MiB`,
    median,
    min,
    max,
    samples: passes,
  };
  if (flops > 0) return { ...row, gigaflopsPerSecond: flops / seconds.median / 1e9 };
  const gigabytesPerSecond = bytes / seconds.median / 1e9;
  return { ...row, gigabytesPerSecond, ofBandwidth: gigabytesPerSecond / bandwidthGBs };
}
