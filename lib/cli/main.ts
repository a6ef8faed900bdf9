#!/usr/bin/env node
import { EXIT_INTERRUPTED, runCli } from './run.js';

const abort = new AbortController();

// The first interrupt lets the command stop by itself and print what it has; the second does not wait.
process.on('SIGINT', () => {
  if (abort.signal.aborted) process.exit(EXIT_INTERRUPTED);
  abort.abort();
});

// When the reader of stdout is gone (`cqil … | head`), nothing is left to do, and that is not a failure. A full disk is
// one.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  process.stderr.write(
    `cqil: stdout cannot be written: ${error.code === 'ENOSPC' ? 'no space is left' : error.message} (${error.code})\n`,
    () => process.exit(1),
  );
});

// When nobody reads progress and errors, the work goes on, and its exit code is the same.
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
