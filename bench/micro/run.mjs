// Micro-benchmarks of what surrounds and makes up one token: sampling, tokenizing, reading headers, a decode step, and
// the native kernels with a cold cache. Prints one table; nothing is judged.
//
//   npm run bench [-- --only sampler,tokenizer,files,decode,kernels] [--time MS] [--json FILE] [--save]
//
// --time is the least time per benchmark (default 300 ms); --save writes bench/results/micro.json and micro.md.
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { decodeTasks } from './decode.mjs';
import { fileTasks } from './files.mjs';
import { kernelRows } from './kernels.mjs';
import { describeRun } from '../../tools/run_info.mjs';
import { markdown, table } from './report.mjs';
import { samplerTasks } from './sampler.mjs';
import { timeTasks } from './timing.mjs';
import { tokenizerTasks } from './tokenizer.mjs';

const TASKS = { sampler: samplerTasks, tokenizer: tokenizerTasks, files: fileTasks, decode: decodeTasks };
const GROUPS = [...Object.keys(TASKS), 'kernels'];

const { values: options } = parseArgs({
  options: {
    only: { type: 'string', default: GROUPS.join(',') },
    time: { type: 'string', default: '300' },
    json: { type: 'string' },
    save: { type: 'boolean', default: false },
  },
});
const groups = options.only.split(',');
const time = Number(options.time);
const unknown = groups.find((group) => !GROUPS.includes(group));
if (unknown !== undefined || !(time > 0)) {
  console.error(
    unknown === undefined
      ? `--time is ${options.time}, expected milliseconds`
      : `--only has ${unknown}, expected some of ${GROUPS.join(', ')}`,
  );
  process.exit(2);
}

const args = process.argv.slice(2);
const run = describeRun('npm run bench', args.length > 0 ? ['--', ...args] : []);
// First, since their build may fail.
if (groups.includes('kernels')) console.error('building and timing: kernels');
const kernels = groups.includes('kernels') ? kernelRows() : { rows: [], skipped: [] };
run.bandwidthGBs = kernels.bandwidthGBs;
const rows = [];
const skipped = [...kernels.skipped];
for (const group of groups.filter((name) => TASKS[name])) {
  console.error(`timing: ${group}`);
  const suite = await TASKS[group]();
  rows.push(...(await timeTasks(group, suite.tasks, time)));
  skipped.push(...(suite.skipped ?? []));
  await suite.close?.();
}
rows.push(...kernels.rows);

console.log(table(rows, run));
for (const reason of skipped) console.log(`skipped: ${reason}`);
const json = `${JSON.stringify({ ...run, rows, skipped }, null, 1)}\n`;
if (options.json) writeFileSync(options.json, json);
if (options.save) {
  const results = path.join(path.dirname(fileURLToPath(import.meta.url)), '../results');
  mkdirSync(results, { recursive: true });
  writeFileSync(path.join(results, 'micro.json'), json);
  writeFileSync(path.join(results, 'micro.md'), markdown(rows, run, skipped));
}
