// Predicted against measured time per token: node bench/latency.mjs NAME [arguments of cqil plan latency]
// Draws 30 plans, times them in turn with those of a new calibration, and writes bench/results/latency-NAME.json and
// .md.
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describeRun, runLine } from '../tools/run_info.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const [name, ...args] = process.argv.slice(2);
if (!/^[\w.-]+$/.test(name ?? ''))
  throw new Error('Expected a name for the results, then arguments of cqil plan latency.');

const run = describeRun('node bench/latency.mjs', [name, ...args]);
const command = ['plan', 'latency', '--calibrate', '--random', '30', '--measure', '20', ...args, '--json'];
const result = JSON.parse(
  execFileSync(process.execPath, [path.join(here, '../dist/cli/main.js'), ...command], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  }),
);

const percent = (share) => `${(share * 100).toFixed(1)} %`;
const planName = (plan) =>
  typeof plan === 'string'
    ? plan
    : `${plan.groups.map((group) => `${group[0]}–${group.at(-1)}`).join(' ')}${plan.bypass ? `, D${plan.bypass}` : ''}`;
const { error, ranking } = result.agreement;
const lines = [
  runLine(run),
  '',
  `Time per token after ${result.position} tokens, predicted from a calibration of other plans and positions, and ` +
    `measured in turn with it, of the sequential plan and plans drawn at random (seed ${result.seed}); medians, ` +
    `${result.rows[0].timings} tokens each, all plans in turn; ${result.machine.threads} threads.`,
  '',
  `Off by ${percent(error.median)} in the median and ${percent(error.max)} at ` +
    `most${result.calibration.busy ? '; the machine was busy while prices were measured' : ''}.`,
  '',
  '| over plans | rank correlation with the measurement | of the measurement with itself |',
  '| --- | --- | --- |',
  ...Object.entries(ranking).map(
    ([execution, { rankCorrelation, repeatability }]) =>
      `| ${execution === 'fastest' ? 'the faster of both' : execution} | ${rankCorrelation.toFixed(3)} | ` +
      `${repeatability.toFixed(3)} |`,
  ),
  '',
  '| groups | execution | phases | waits | predicted ms | measured ms | off by |',
  '| --- | --- | --- | --- | --- | --- | --- |',
  ...result.rows.map(
    ({ plan, execution, phases, waits, predictedMsPerToken: predicted, measuredMsPerToken: measured }) =>
      `| ${planName(plan)} | ${execution} | ${phases} | ${waits} | ${predicted.toFixed(4)} | ` +
      `${measured.toFixed(4)} | ${percent(predicted / measured - 1)} |`,
  ),
  '',
];
const file = path.join(here, 'results', `latency-${name}`);
writeFileSync(`${file}.json`, `${JSON.stringify({ run, ...result, model: path.basename(result.model) }, null, 1)}\n`);
writeFileSync(`${file}.md`, lines.join('\n'));
console.log(lines.slice(0, 11).join('\n'));
