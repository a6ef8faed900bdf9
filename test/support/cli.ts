import { Readable } from 'node:stream';
import { runCli } from '../../lib/cli/run.js';

export interface CliRun {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs a command line in this process, with strings for its input and outputs and no terminal. */
export async function cqil(
  args: string[],
  options: { stdin?: string | Readable; signal?: AbortSignal; onOut?: (text: string) => void } = {},
): Promise<CliRun> {
  const run: CliRun = { code: -1, stdout: '', stderr: '' };
  run.code = await runCli(args, {
    stdin: options.stdin instanceof Readable ? options.stdin : Readable.from([Buffer.from(options.stdin ?? '')]),
    out: (text) => {
      run.stdout += text;
      options.onOut?.(text);
    },
    err: (text) => {
      run.stderr += text;
    },
    signal: options.signal ?? new AbortController().signal,
  });
  return run;
}
