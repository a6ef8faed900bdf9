// Whether a change made anything slower: two checkouts side by side, each with its own build.
//
//   git worktree add /tmp/before COMMIT && (cd /tmp/before && npm ci)
//   npm run build && node bench/before_after.mjs --before /tmp/before [--after .] [--models Q8_0,F16,shipped]
//     [--threads 1,2] [--plan sequential] [--rounds 5] [--turns 6] [--name NAME] [--more]
//
// Both read the same files: the shape smollm2-135m with random weights, and the model that ships. In a round, for each
// model and number of threads, a process of either side starts from a cold file (its pages dropped from the system's
// cache, where dd can) and one from a cached file; their times to the first token count. The latter two then take
// turns: a prompt and the tokens after it, while the other waits. Who goes first alternates. What counts is the
// ratio of two turns that follow each other, after to before. A row has the median of these ratios and its interval of
// 95 %. It is slower if even the low end of the interval is above the bound of 2 %, and within the bound if even the
// high end is below it. Between
// these, the machine was too noisy to say: --more adds rounds to those that NAME.json has of the same two commits.
// Writes bench/results/NAME.json and .md; ends with code 1 where a row is slower, or where logits differ.
import { execFileSync, fork } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual, parseArgs } from 'node:util';
import { medianInterval, quantile } from '../dist/analysis/eval/statistics.js';
import { commitOf, describeRun, runLine } from '../tools/run_info.mjs';
import { writeRandomGguf } from './peers/random_gguf.mjs';
import { evict } from './evict.mjs';
import { spread } from './spread.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const BOUND = 1.02;
const SHIPPED = path.join(here, '../models/stories-24l/stories-24l-q8_0.gguf');
/** What a turn computes: long enough to time, short enough that both sides meet the same moods of the machine. */
const WORKLOADS = {
  shipped: { title: 'the model that ships', prompt: 128, prompts: 4, tokens: 128 },
  default: { title: 'smollm2-135m', prompt: 128, prompts: 1, tokens: 32 },
};
const QUANTITIES = {
  coldMs: 'first token, cold file, ms',
  cachedMs: 'first token, cached file, ms',
  prefillMs: 'prefill of 128, ms',
  decodeMs: 'decode, ms per token',
};

const { values } = parseArgs({
  options: {
    before: { type: 'string' },
    after: { type: 'string', default: path.join(here, '..') },
    models: { type: 'string', default: 'Q8_0,F16,shipped' },
    threads: { type: 'string', default: '1,2' },
    plan: { type: 'string', default: 'sequential' },
    rounds: { type: 'string', default: '5' },
    turns: { type: 'string', default: '6' },
    name: { type: 'string', default: 'before-after' },
    folder: { type: 'string', default: path.join(here, 'results') },
    more: { type: 'boolean', default: false },
  },
});
if (values.before === undefined) throw new Error('--before FOLDER is missing: a checkout with a build of its own.');

const sides = { before: path.resolve(values.before), after: path.resolve(values.after) };
const run = {
  ...describeRun('node bench/before_after.mjs', commandArguments()),
  plan: values.plan,
  before: commitOf(sides.before),
  after: commitOf(sides.after),
};
const file = path.join(values.folder, values.name);
const rows = values.more ? earlierRows() : [];
const temporary = mkdtempSync(path.join(os.tmpdir(), 'cqil-before-after-'));
try {
  await measure();
} finally {
  rmSync(temporary, { recursive: true });
}
const verdicts = rows.flatMap((row) => Object.keys(QUANTITIES).map((quantity) => judge(row, quantity)));
console.log(table());
if (rows.some(({ sameBits }) => !sameBits) || verdicts.some(({ verdict }) => verdict === 'slower')) {
  process.exitCode = 1;
}

async function measure() {
  const models = values.models.split(',').map((name) => [name, modelFile(name)]);
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const [name, model] of models) {
      for (const threads of values.threads.split(',').map(Number)) {
        console.error(`round ${round + 1}: ${name}, threads: ${threads}`);
        await measureRow(rowOf(name, threads), model, round % 2 === 1);
      }
    }
    // After each round, so that a run that is stopped keeps what it has.
    writeFileSync(`${file}.json`, `${JSON.stringify({ ...run, rows }, null, 1)}\n`);
    writeFileSync(`${file}.md`, table());
  }
}

function modelFile(name) {
  if (name === 'shipped') return SHIPPED;
  const model = path.join(temporary, `${name}.gguf`);
  writeRandomGguf(model, 'smollm2-135m', name);
  execFileSync('sync');
  return model;
}

/** One round of a row: both kinds of start, then turns. */
async function measureRow(row, model, afterFirst) {
  const workload = WORKLOADS[row.model] ?? WORKLOADS.default;
  const request = {
    model,
    plan: values.plan,
    threads: row.threads,
    ids: Array.from({ length: workload.prompt }, (_, i) => 300 + ((i * 7919) % 3000)),
    tokens: workload.tokens,
    prompts: workload.prompts,
    contextLength: workload.prompt + workload.tokens + 8,
  };
  const order = Object.keys(sides);
  if (afterFirst) order.reverse();
  for (const side of order) {
    evictIfPossible(model);
    const once = start(side, { ...request, firstOnly: true });
    row.samples.coldMs[side].push((await once.answer()).at - once.startedAt);
    await once.ended;
  }
  const processes = {};
  const hashes = [];
  for (const side of order) {
    processes[side] = start(side, request);
    row.samples.cachedMs[side].push((await processes[side].answer()).at - processes[side].startedAt);
    hashes.push((await processes[side].answer()).hash);
  }
  row.sameBits &&= hashes[0] === hashes[1];
  for (let turn = 0; turn < Number(values.turns); turn++) {
    for (const side of turn % 2 ? [...order].reverse() : order) {
      const { prefillMs, decodeMs } = await processes[side].ask('turn');
      row.samples.prefillMs[side].push(prefillMs);
      row.samples.decodeMs[side].push(decodeMs);
    }
  }
  for (const side of order) {
    processes[side].send('end');
    await processes[side].ended;
  }
}

/** A process of one side that has got its request; `answer` waits for the next message that it sends. */
function start(side, request) {
  const startedAt = performance.timeOrigin + performance.now();
  const child = fork(path.join(here, 'before_after_run.mjs'), [sides[side]], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const answers = [];
  const waiting = [];
  child.on('message', (message) => (waiting.length ? waiting.shift().resolve(message) : answers.push(message)));
  const ended = new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code) => {
      const failure = new Error(`The process of ${side} (${sides[side]}) ended with code ${code}.`);
      for (const { reject } of waiting) reject(failure);
      if (code === 0) resolve();
      else reject(failure);
    });
  });
  ended.catch(() => {}); // told by whoever waits for an answer
  const send = (message) => child.send(message);
  const answer = () =>
    answers.length
      ? Promise.resolve(answers.shift())
      : new Promise((resolve, reject) => waiting.push({ resolve, reject }));
  const ask = (message) => {
    send(message);
    return answer();
  };
  send(request);
  return { startedAt, send, answer, ask, ended };
}

/** Drops the file's pages from the system's cache, where there is GNU dd. */
function evictIfPossible(model) {
  try {
    evict(model);
  } catch {
    // Then both sides start from a cached file.
  }
}

function rowOf(model, threads) {
  const known = rows.find((row) => row.model === model && row.threads === threads);
  if (known) return known;
  const samples = Object.fromEntries(Object.keys(QUANTITIES).map((name) => [name, { before: [], after: [] }]));
  const row = { model, threads, sameBits: true, samples };
  rows.push(row);
  return row;
}

/** Those of an earlier run, if it compared these two commits on this machine. */
function earlierRows() {
  const { rows: earlier, ...known } = JSON.parse(readFileSync(`${file}.json`, 'utf8'));
  const facts = ({ before, after, plan, machine }) => ({
    before,
    after,
    plan,
    machine: { ...machine, loadAverage: undefined },
  });
  if (!isDeepStrictEqual(facts(known), facts(run))) {
    throw new Error(`${file}.json is of other commits, of another plan or of another machine: leave --more out.`);
  }
  return earlier;
}

function judge({ samples }, quantity) {
  const { before, after } = samples[quantity];
  const ratios = after.map((ms, i) => ms / before[i]);
  const [low, high] = medianInterval(ratios, 0.95);
  const verdict = low > BOUND ? 'slower' : high < 1 ? 'faster' : high <= BOUND ? 'within 2 %' : 'not certain';
  return { ratio: quantile(ratios, 0.5), low, high, verdict };
}

function table() {
  const head = ['model', 'threads', 'what', 'before', 'after', 'after / before', 'verdict', 'pairs'];
  const lines = rows.flatMap((row) =>
    Object.entries(QUANTITIES).map(([quantity, title]) => {
      const { ratio, low, high, verdict } = judge(row, quantity);
      const { before, after } = row.samples[quantity];
      const digits = quantity.startsWith('decode') ? 2 : 0;
      const model = row.model === 'shipped' ? WORKLOADS.shipped.title : `${WORKLOADS.default.title}, ${row.model}`;
      const interval = Number.isFinite(low) ? `${low.toFixed(3)}–${high.toFixed(3)}` : 'too few pairs';
      const change = `${ratio.toFixed(3)} (${interval})`;
      const cells = [spread(before, digits), spread(after, digits), change, verdict, before.length];
      return [model, row.threads, title, ...cells];
    }),
  );
  const bits = rows.every(({ sameBits }) => sameBits) ? 'Both sides' : 'NOT in every row both sides';
  return `${runLine(run)}

Before: \`${run.before}\`. After: \`${run.after}\`. Plan: ${values.plan}. Two processes in turn; median (min–max) of each side.
Ratios: median of neighbours in time, with its interval of 95 %. ${bits} computed logits of the same bits after a prompt.

${[head, head.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n')}
`;
}

/** Without folders of one machine, which tell a reader nothing. */
function commandArguments() {
  return process.argv
    .slice(2)
    .map((argument, i, all) => (/^--(before|folder)$/.test(all[i - 1]) ? path.basename(argument) : argument));
}
