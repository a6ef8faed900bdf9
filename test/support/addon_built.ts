import { existsSync } from 'node:fs';
import path from 'node:path';

/** Without the addon most tests would have nothing to test: the run ends before the first of them. */
export default function setUp(): void {
  requireAddon(path.join(__dirname, '../../build/Release/cqil.node'));
}

export function requireAddon(addon: string): void {
  if (!existsSync(addon))
    throw new Error(`The tests need the native addon, and ${addon} is not there: npm run build:native makes it.`);
}
