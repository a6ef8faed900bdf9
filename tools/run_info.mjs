import { execFileSync } from 'node:child_process';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describeMachine } from '../dist/engine/machine.js';

/** What a reader needs to judge or repeat the numbers of a run: `command` with the arguments it was given. */
export function describeRun(command, args) {
  const { cpu, cores, isa } = describeMachine();
  return {
    command: [command, ...args].join(' '),
    date: new Date().toISOString(),
    commit: commitOf(path.join(path.dirname(fileURLToPath(import.meta.url)), '..')),
    machine: {
      cpu,
      cores,
      isa,
      memoryGiB: Math.round(os.totalmem() / 2 ** 30),
      node: process.version,
      loadAverage: os.loadavg()[0],
    },
  };
}

/** That, in a line. */
export function runLine({ command, date, commit: at, machine }) {
  return (
    `\`${command}\` at commit ${at ?? 'unknown'}, ${date.slice(0, 10)}. ${machine.cpu}, ${machine.cores} ` +
    `cores (${machine.isa}), load ${machine.loadAverage.toFixed(1)} at the start, Node ${machine.node}.`
  );
}

/** The commit of a checkout. Undefined outside one; marked where the tree, results aside, differs from it. */
export function commitOf(folder) {
  const git = (...args) =>
    execFileSync('git', args, {
      cwd: folder,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  try {
    return (
      git('rev-parse', '--short', 'HEAD') +
      (git('status', '--porcelain', '--', '.', ':!bench/results') === '' ? '' : ', with changes')
    );
  } catch {
    return undefined;
  }
}
