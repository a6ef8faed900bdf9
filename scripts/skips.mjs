// Counts what a test run skipped, and says whether that is allowed. Each step of `npm test` appends to the file that
// CQIL_TEST_RECORD names; the last lines of the run sum it up.
import { appendFileSync, readFileSync } from 'node:fs';

const ALLOWED = JSON.parse(readFileSync(new URL('../test/allowed_skips.json', import.meta.url), 'utf8'));

/**
 * Adds what a step did to the record of the whole run; without such a record, prints it, and sets the exit code when
 * something failed or CQIL_TESTS=all forbids a skip.
 */
export function recordRun(run) {
  if (process.env.CQIL_TEST_RECORD) appendFileSync(process.env.CQIL_TEST_RECORD, `${JSON.stringify(run)}\n`);
  else if (!summarize([run])) process.exitCode = 1;
}

/** The records of a file, in the order in which they were added. */
export function readRuns(file) {
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
}

/**
 * Prints counts, and by reason what was skipped. False when something failed, or CQIL_TESTS=all forbids one of the
 * skips.
 */
export function summarize(runs, print = console.log) {
  const total = (count) => runs.reduce((sum, run) => sum + count(run), 0);
  const skipped = runs.flatMap((run) => run.skipped);
  const byReason = groupBy(skipped, ({ reason }) => reason);
  const forbidden = [];
  for (const [reason, group] of byReason) {
    const allowed = ALLOWED.some((entry) => reason.includes(entry.reason));
    if (!allowed) forbidden.push(reason);
    const tests = group.reduce((sum, entry) => sum + entry.tests, 0);
    print(
      `skipped: ${tests > 0 ? `${tests} ${tests === 1 ? 'test' : 'tests'}` : 'parts of tests'}: ` +
        `${reason}${allowed ? '' : ' (not on the list of test/allowed_skips.json)'}`,
    );
    for (const [what, parts] of groupBy(group, ({ what }) => what))
      print(`    ${what}${parts.length > 1 ? ` (${parts.length})` : ''}`);
  }
  const strict = process.env.CQIL_TESTS === 'all' && forbidden.length > 0;
  if (strict) print('failed: CQIL_TESTS=all, and what is not on the list was skipped');
  const failed = total((run) => run.failed);
  print(
    `${total((run) => run.passed)} passed, ${failed} failed, ` +
      `${total((run) => run.skipped.reduce((sum, { tests }) => sum + tests, 0))} skipped`,
  );
  return failed === 0 && !strict;
}

function groupBy(items, keyOf) {
  const groups = new Map();
  for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item]);
  return groups;
}
