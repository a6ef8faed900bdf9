// Builds the native tests with CMake and runs them. What they skip is counted by `npm test`. Arguments are passed on to
// CMake.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { buildWithCMake, missingTools } from './cmake.mjs';
import { recordRun } from './skips.mjs';

const build = 'build-native';
const run = (command, args) => spawnSync(command, args, { stdio: 'inherit' }).status ?? 1;

if (missingTools(['cmake']).length > 0) {
  recordRun({ passed: 0, failed: 0, skipped: [{ what: 'native tests', reason: 'cmake is not installed', tests: 1 }] });
} else {
  const built = buildWithCMake(build, process.argv.slice(2));
  const failed =
    built || run('ctest', ['--test-dir', build, '--output-on-failure', '--parallel', String(availableParallelism())]);
  recordRun(
    built
      ? { passed: 0, failed: 1, skipped: [] }
      : readLog(readFileSync(`${build}/Testing/Temporary/LastTest.log`, 'utf8')),
  );
  if (failed) process.exitCode = failed;
}

/**
 * Counts from CTest's log. It has a section per test: what the test printed, then "Test Passed.", "Test Skipped." or
 * why it failed.
 */
function readLog(log) {
  const found = { passed: 0, failed: 0, skipped: [] };
  for (const section of log.split(/^(?=\d+\/\d+ Testing: )/m).slice(1)) {
    const name = /Testing: (.*)/.exec(section)[1];
    const whole = /^Test Skipped\.$/m.test(section);
    if (/^Test Passed\.$/m.test(section)) found.passed++;
    else if (!whole) found.failed++;
    for (const [, what, reason] of section.matchAll(/^skipped: ([^:]*): (.*)$/gm)) {
      found.skipped.push({ what: whole ? `native ${name}` : `native ${name}: ${what}`, reason, tests: whole ? 1 : 0 });
    }
  }
  return found;
}
