import { existsSync } from 'node:fs';
import path from 'node:path';
import { describeUnless } from './unless.js';

const given = process.env['CQIL_DATA'];
const root = given ?? path.resolve(__dirname, '../../../shared/data');
if (given !== undefined && !existsSync(given)) throw new Error(`CQIL_DATA is '${given}', and no such folder exists.`);

/**
 * A path inside the folder of real inputs, which the project does not ship: $CQIL_DATA, or ../shared/data beside the
 * checkout.
 */
export function sharedData(...parts: string[]): string {
  return path.join(root, ...parts);
}

/** Why the real inputs cannot be used, if so. */
export const sharedMissing = existsSync(root)
  ? undefined
  : 'extra: the real inputs of ../shared/data or $CQIL_DATA are not there';

/** A suite that adds real inputs to what the fixtures prove already. */
export function describeShared(name: string, suite: () => void): void {
  describeUnless(sharedMissing, name, suite);
}
