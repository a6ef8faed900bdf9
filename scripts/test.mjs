// npm test: runs every step in turn, then prints how long each took, how many tests passed, and what was skipped and
// why.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { readRuns, recordRun, summarize } from './skips.mjs';

const STEPS = [
  'npm run --silent lint',
  'npm run --silent typecheck',
  'npm run --silent build:cuda -- --if-possible',
  'npm run --silent test:native',
  `npx vitest run ${process.argv.slice(2).join(' ')}`,
];

const folder = mkdtempSync(path.join(tmpdir(), 'cqil-tests-'));
const record = (process.env.CQIL_TEST_RECORD = path.join(folder, 'record.jsonl'));
recordRun({ passed: 0, failed: 0, skipped: [] });
const took = [];
let failedStep;
for (const step of STEPS) {
  const begin = performance.now();
  const { status } = spawnSync(step, { stdio: 'inherit', shell: true });
  took.push(
    `${step.replace(/^(npm run --silent|npx) /, '').split(' ')[0]} ${Math.round((performance.now() - begin) / 1000)} s`,
  );
  if (status === 0) continue;
  failedStep = step;
  break;
}
console.log(`\n${took.join(', ')}`);
const ok = summarize(readRuns(record));
rmSync(folder, { recursive: true });
if (failedStep) console.log(`failed: ${failedStep}`);
process.exitCode = ok && !failedStep ? 0 : 1;
