import { execFile } from 'node:child_process';
import { realpath } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import type { Command } from 'commander';

const run = promisify(execFile);

/** The commit of these sources, with a plus when they differ from it; null where they are no checkout of their own. */
export async function sourceCommit(): Promise<string | null> {
  // The package root, from lib/cli and dist/cli alike.
  const root = path.join(__dirname, '../..');
  const git = async (...args: string[]): Promise<string> =>
    (await run('git', ['-C', root, ...args], { timeout: 10_000 })).stdout.trim();
  try {
    // Installed below a project of someone else's, git would give that project's commit.
    if ((await realpath(await git('rev-parse', '--show-toplevel'))) !== (await realpath(root))) return null;
    const changed = await git('status', '--porcelain', '--untracked-files=no');
    return `${await git('rev-parse', '--short=12', 'HEAD')}${changed === '' ? '' : '+'}`;
  } catch {
    return null; // no git, or nothing it knows
  }
}

/** What a command was given, as a line that a shell takes. */
export function commandLine(command: Command): string {
  const words: string[] = [];
  for (let at: Command | null = command; at; at = at.parent) words.unshift(at.name());
  words.push(...command.args);
  for (const option of command.options) {
    const name = option.attributeName();
    if (command.getOptionValueSource(name) !== 'cli') continue;
    const value: unknown = command.getOptionValue(name);
    for (const one of Array.isArray(value) ? value : [value])
      words.push(option.long!, ...(one === true ? [] : [String(one)]));
  }
  return words.map((word) => (/^[\w./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(' ');
}
