// Builds native_llama.c with the system's C compiler, into a folder that is given.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const PREBUILT = path.join(
  here,
  'node_modules/@node-llama-cpp',
  `linux-${process.arch}`,
  'bins',
  `linux-${process.arch}`,
);

/** { program, library } for time_native.mjs; undefined where there is no such library or no C compiler. */
export function buildNativeLlama(folder) {
  const library = existsSync(PREBUILT) && readdirSync(PREBUILT).find((name) => /^libllama\.(v[\d.]*)?so$/.test(name));
  if (!library) return undefined;
  const program = path.join(folder, 'native_llama');
  try {
    execFileSync('cc', ['-O2', path.join(here, 'native_llama.c'), '-o', program, '-ldl'], { stdio: 'pipe' });
  } catch (error) {
    console.error(`native_llama.c cannot be compiled: ${error.stderr ?? error.message}`);
    return undefined;
  }
  return { program, library: path.join(PREBUILT, library) };
}
