// What several conversations cost together: node bench/concurrent.mjs [--texts 8] [--threads 2] [--dtype Q8_0]
//   [--rounds 5] [--open 1000]
// A round runs the same generations once in series and once at the same time, in turn, on the shape smollm2-135m with
// random weights. Then opens conversations of 16 tokens each, and looks at the process's resident memory.
// Writes bench/results/concurrent-smollm2-135m-DTYPE.json and .md.
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { quantile } from '../dist/analysis/eval/statistics.js';
import { kvBytesPerPosition } from '../dist/engine/kv_cache.js';
import { loadSyntheticModel } from '../dist/model/load.js';
import { describeRun, runLine } from '../tools/run_info.mjs';
import { spread } from './spread.mjs';

const SHAPE = 'smollm2-135m';
const PROMPT = 32;
const TOKENS = 32;
const SHORT = 16;
const PAGE = 4096;

const { values } = parseArgs({
  options: {
    texts: { type: 'string', default: '8' },
    threads: { type: 'string', default: '2' },
    dtype: { type: 'string', default: 'Q8_0' },
    rounds: { type: 'string', default: '5' },
    open: { type: 'string', default: '1000' },
  },
});
const [texts, threads, rounds, open] = [values.texts, values.threads, values.rounds, values.open].map(Number);
const run = describeRun('node bench/concurrent.mjs', process.argv.slice(2));
const model = await loadSyntheticModel(SHAPE, { dtype: values.dtype, threads });
const ids = (text, n) => Array.from({ length: n }, (_, i) => 300 + ((text * 101 + i * 7919) % 3000));

const samples = { series: [], together: [], firstToken: [] };
let sameTokens = true;
for (let round = 0; round <= rounds; round++) {
  const results = {};
  for (const way of round % 2 ? ['series', 'together'] : ['together', 'series']) {
    const start = performance.now();
    if (way === 'series') {
      results.series = [];
      for (let text = 0; text < texts; text++) results.series.push(await generate(text));
    } else {
      results.together = await Promise.all(Array.from({ length: texts }, (_, text) => generate(text)));
    }
    if (round > 0) samples[way].push(performance.now() - start);
  }
  const first = results.together.map(({ timings }) => timings.timeToFirstTokenMs);
  if (round > 0) samples.firstToken.push(Math.max(...first) / Math.min(...first));
  sameTokens &&= JSON.stringify(results.series.map(tokensOf)) === JSON.stringify(results.together.map(tokensOf));
}
if (!sameTokens) throw new Error('A generation gave other tokens together than in series.');
const ratios = samples.together.map((ms, i) => ms / samples.series[i]);

const memory = await measureMemory();
await model.dispose();

const mega = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const lines = [
  runLine(run),
  '',
  `${SHAPE} at ${values.dtype}, ${model.activations} activations, ${model.kvCache} cache, ${threads} threads. ` +
    `${texts} generations of ${PROMPT} and ${TOKENS} tokens, in series and together, in turn; median (min–max) of ` +
    `${rounds} rounds. Each gives the same tokens.`,
  '',
  '| in series, ms | together, ms | together / in series | latest / earliest first token |',
  '|---:|---:|---:|---:|',
  `| ${spread(samples.series, 0)} | ${spread(samples.together, 0)} | ${spread(ratios, 3)} | ` +
    `${spread(samples.firstToken, 2)} |`,
  '',
  `${open} open conversations of ${SHORT} tokens: resident memory grew by ${mega(memory.grown)}, ` +
    `${mega(memory.grown / open)} each. The pages that their caches fill are ${mega(memory.cachePages / open)} each.`,
  '',
];
const file = path.join(path.dirname(fileURLToPath(import.meta.url)), 'results', `concurrent-${SHAPE}-${values.dtype}`);
writeFileSync(
  `${file}.json`,
  `${JSON.stringify({ run, shape: SHAPE, ...values, samples, ratio: quantile(ratios, 0.5), memory }, null, 1)}\n`,
);
writeFileSync(`${file}.md`, lines.join('\n'));
console.log(lines.join('\n'));

function generate(text) {
  return model.generate(ids(text, PROMPT), { maxTokens: TOKENS, temperature: 0 });
}

function tokensOf({ tokens }) {
  return tokens;
}

/** Bytes by which resident memory grew, and those of the pages that the conversations' keys and values stand in. */
async function measureMemory() {
  const { nLayers, nKvHeads, headDim } = model.config;
  const kept = model.createSession();
  await kept.prefill(ids(0, PROMPT * texts)); // the workspace has had its largest forward
  const before = resident();
  const sessions = [];
  for (let i = 0; i < open; i += texts) {
    const some = Array.from({ length: Math.min(texts, open - i) }, () => model.createSession());
    await Promise.all(some.map((session, text) => session.shortlist(ids(text, SHORT), 1)));
    sessions.push(...some);
  }
  const grown = resident() - before;
  const rowBytes = kvBytesPerPosition({ nLayers: 1, nKvHeads: 1, headDim }, model.kvCache) / 2;
  const pages = Math.ceil((SHORT * rowBytes) / PAGE);
  const cachePages = open * 2 * nLayers * nKvHeads * pages * PAGE;
  for (const session of [kept, ...sessions]) session.close();
  return { grown, cachePages };
}

function resident() {
  globalThis.gc?.();
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024;
}
