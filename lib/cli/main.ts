#!/usr/bin/env node
import { EXIT_INTERRUPTED, runCli } from './run.js';

const abort = new AbortController();

// The first interrupt lets the command stop by itself and print what it has; the second does not wait.
process.on('SIGINT', () => {
  if (abort.signal.aborted) process.exit(EXIT_INTERRUPTED);
  abort.abort();
});

// Whoever read stdout is gone (`cqil … | head`): nothing is left to do, and it is not a failure. A full disk is one.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  process.stderr.write(`cqil: stdout cannot be written: ${error.code === 'ENOSPC' ? 'no space is left' : error.message} (${error.code})\n`, () => process.exit(1));
});

// Progress and errors are for whoever reads them: the work and its exit code are the same without.
process.stderr.on('error', () => {});

void runCli(process.argv.slice(2), {
  stdin: process.stdin,
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  terminal: process.stderr.isTTY ? process.stderr : undefined,
  signal: abort.signal,
}).then((code) => {
  process.exitCode = code;
});
