// What a plan takes off a token: npm run build && node bench/plan_gain.mjs [--shape smollm2-135m] [--dtypes F16,Q4_0]
// [--executions wide,lanes]
//   [--tokens 64] [--rounds 30] [--name NAME]
// `cqil bench` of a shape with random weights, two threads, the sequential plan and two others in each execution, in
// turn; once for each format. Writes bench/results/NAME.json and .md; NAME is plan-SHAPE unless it is given.
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { syntheticCheckpoint } from '../dist/checkpoint/synthetic.js';
import { quantile } from '../dist/analysis/eval/statistics.js';
import { describeRun, runLine } from '../tools/run_info.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));

const { values } = parseArgs({
  options: {
    shape: { type: 'string', default: 'smollm2-135m' },
    dtypes: { type: 'string', default: 'F16,Q4_0' },
    executions: { type: 'string', default: 'wide,lanes' },
    tokens: { type: 'string', default: '64' },
    rounds: { type: 'string', default: '30' },
    name: { type: 'string' },
  },
});
const last = syntheticCheckpoint(values.shape, 'F16').config.nLayers - 2;
const PLANS = ['sequential', `P2-S4-E${last}`, `P4-S4-E${last}`];
const WORKLOAD = ['--threads', '2', '--prompt-tokens', '64', '--tokens', values.tokens];
const run = describeRun('node bench/plan_gain.mjs', process.argv.slice(2));
const results = Object.fromEntries(values.dtypes.split(',').map((dtype) => [dtype, bench(dtype)]));
const lines = [
  runLine(run),
  '',
  `What a plan takes off a token with two threads: random weights of the shape ${values.shape}, ${values.rounds} ` +
    `rounds in turn, of ${WORKLOAD.at(-1)} tokens decoded as a generation at`,
  'temperature 0 does after 64 others; ms per token, median (least–greatest median of a round). Change: of the ' +
    'median; and of each round against the round of the sequential plan beside',
  'it, median. Bandwidth: of what this machine lets two threads read.',
  '',
  '| weights | plan | execution | phases | barriers | ms per token | change | round by round | of bandwidth |',
  '| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |',
  ...Object.entries(results).flatMap(([dtype, { rows, machine }]) =>
    rows.map((row) => line(`${dtype}, ${machine.activations}`, row, rows[0])),
  ),
  '',
  'In `lanes` each of the two threads computes a layer of a group for itself: most barriers are gone, and each ' +
    'reads whole matrices. `wide` saves barriers alone.',
  '',
];
const file = path.join(here, 'results', values.name ?? `plan-${values.shape}`);
writeFileSync(`${file}.json`, `${JSON.stringify({ ...run, ...results }, null, 1)}\n`);
writeFileSync(`${file}.md`, lines.join('\n'));
console.log(lines.join('\n'));

function bench(dtype) {
  const contenders = [
    ...PLANS.flatMap((plan) => ['--plan', plan]),
    ...values.executions.split(',').flatMap((execution) => ['--execution', execution]),
  ];
  const args = [
    'bench',
    '--synthetic',
    values.shape,
    '--dtype',
    dtype,
    '--backend',
    'cpu',
    ...contenders,
    ...WORKLOAD,
    '--repeat',
    values.rounds,
    '--json',
  ];
  return JSON.parse(
    execFileSync(process.execPath, [path.join(here, '../dist/cli/main.js'), ...args], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    }),
  );
}

function line(weights, row, sequential) {
  const { min, median, max } = row.msPerToken;
  const change = percent(median / sequential.msPerToken.median);
  const rounds = percent(
    quantile(
      row.roundMsPerToken.map((ms, i) => ms / sequential.roundMsPerToken[i]),
      0.5,
    ),
  );
  const ms = `${median.toFixed(2)} (${min.toFixed(2)}–${max.toFixed(2)})`;
  const cells = [
    weights,
    row.plan,
    executionOf(row),
    row.phases,
    row.barriersPerToken,
    ms,
    change,
    rounds,
    `${(100 * row.fractionOfMeasuredBandwidth).toFixed(0)} %`,
  ];
  return `| ${cells.join(' | ')} |`;
}

function executionOf({ execution, settledExecution, threads }) {
  return execution === 'auto' ? `auto: ${settledExecution}, threads: ${threads}` : execution;
}

function percent(ratio) {
  const change = 100 * (ratio - 1);
  return `${change < 0 ? '−' : '+'}${Math.abs(change).toFixed(1)} %`;
}
