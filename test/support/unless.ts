import { describe } from 'vitest';

/**
 * A suite that is skipped when there is a reason to. The reason ends up in the last lines of the run: skip_reporter.ts
 * reads it here.
 */
export function describeUnless(reason: string | undefined, name: string, suite: () => void): void {
  if (reason === undefined) describe(name, suite);
  else describe.skip(`${name} [skipped: ${reason}]`, suite);
}
