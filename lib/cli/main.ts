#!/usr/bin/env node
import { EXIT_INTERRUPTED, runCli } from './run.js';

const abort = new AbortController();

// The first interrupt lets the command stop by itself and print what it has; the second does not wait.
process.on('SIGINT', () => {
  if (abort.signal.aborted) process.exit(EXIT_INTERRUPTED);
  abort.abort();
});

// Whoever read stdout is gone (`cqil … | head`): nothing is left to do, and it is not a failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  process.exit(error.code === 'EPIPE' ? 0 : 1);
});

void runCli(process.argv.slice(2), {
  stdin: process.stdin,
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  terminal: process.stderr.isTTY ? process.stderr : undefined,
  signal: abort.signal,
}).then((code) => {
  process.exitCode = code;
});
