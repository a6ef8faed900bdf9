/** A test, or a part of one, that did not run. */
export interface Skip {
  what: string;
  reason: string;
  /** The number of tests that did not run; 0 when only a part of a test was skipped. */
  tests: number;
}

/** What one step of `npm test` did. */
export interface Run {
  passed: number;
  failed: number;
  skipped: Skip[];
}

/**
 * Adds what a step did to the record of the whole run; without such a record, prints it, and sets the exit code when
 * something failed or CQIL_TESTS=all forbids a skip.
 */
export function recordRun(run: Run): void;
/** The records of a file, in the order in which they were added. */
export function readRuns(file: string): Run[];
/**
 * Prints counts, and by reason what was skipped. False when something failed, or CQIL_TESTS=all forbids one of the
 * skips.
 */
export function summarize(runs: Run[], print?: (line: string) => void): boolean;
