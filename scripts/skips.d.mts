/** Something that did not run. */
export interface Skip {
  what: string;
  reason: string;
  /** How many tests that kept from running; 0: a part of one. */
  tests: number;
}

/** What one step of `npm test` did. */
export interface Run {
  passed: number;
  failed: number;
  skipped: Skip[];
}

/** Adds to the record of the whole run, where there is one; otherwise prints it. Sets the exit code when CQIL_TESTS=all forbids a skip. */
export function recordRun(run: Run): void;
/** The records of a file, in the order in which they were added. */
export function readRuns(file: string): Run[];
/** Prints counts and what was skipped, by reason. False when something failed, or was skipped that CQIL_TESTS=all wants to be run. */
export function summarize(runs: Run[], print?: (line: string) => void): boolean;
