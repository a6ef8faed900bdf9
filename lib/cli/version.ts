import { readFileSync } from 'node:fs';
import path from 'node:path';

/** The version in package.json, two levels up from lib/cli and dist/cli alike. */
export function packageVersion(): string {
  const manifest = JSON.parse(readFileSync(path.join(__dirname, '../../package.json'), 'utf8')) as { version: string };
  return manifest.version;
}
