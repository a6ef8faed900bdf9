import { existsSync } from 'node:fs';
import path from 'node:path';
import { describe } from 'vitest';

const root = path.resolve(__dirname, '../../../shared/data');

/** A path inside the shared test data beside the checkout, which the project does not ship. */
export function sharedData(...parts: string[]): string {
  return path.join(root, ...parts);
}

/** Why the shared test data cannot be used, if so. */
export const sharedMissing = existsSync(root) ? undefined : 'the shared test data is not beside this checkout';

/** A suite that needs the shared test data; where it is absent the skip is printed with its reason. */
export function describeShared(name: string, suite: () => void): void {
  describeUnless(sharedMissing, name, suite);
}

/** A suite that is skipped, saying why, when there is a reason to. */
export function describeUnless(reason: string | undefined, name: string, suite: () => void): void {
  if (reason === undefined) describe(name, suite);
  else {
    console.warn(`skipped: ${name}: ${reason}`);
    describe.skip(`${name} (${reason})`, suite);
  }
}
