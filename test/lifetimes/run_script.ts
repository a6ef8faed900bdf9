import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';

/**
 * Runs a script of this folder in a process of its own; resolves to what it printed. Rejects, with its stderr, when it
 * fails, is killed by a signal, or takes longer than the limit.
 */
export async function runScript(script: string, args: string[], timeoutMs = 60_000): Promise<string> {
  const flags = ['--expose-gc', '--unhandled-rejections=strict'];
  // One malloc arena: with one per thread, freed memory stays scattered and resident bytes say little.
  const env = { ...process.env, MALLOC_ARENA_MAX: '1' };
  const { stdout } = await promisify(execFile)(process.execPath, [...flags, path.join(__dirname, script), ...args], {
    timeout: timeoutMs,
    env,
  });
  return stdout;
}
