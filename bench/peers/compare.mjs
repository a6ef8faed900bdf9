// Decode and prefill speed of cqil and node-llama-cpp, side by side: the same random weights in the same GGUF file, the
// same threads, the same token ids, one greedy token per step, each run in a fresh process, the engines in turn (A B C
// A B C …). cqil runs twice where weights have products with int8 activations, which is what node-llama-cpp always uses
// for them: first as it does unasked, then otherwise. Where there is a C compiler, the libraries of node-llama-cpp run
// once more without Node.js ("llama.cpp, native"), which shows what the binding costs.
//
//   npm run build && node bench/peers/install.mjs && node bench/peers/compare.mjs [--shape smollm2-135m] [--dtypes F16,Q8_0,Q4_0,Q4_K,…]
//     [--threads 1,2] [--prompt-tokens 512] [--tokens 64] [--rounds 3] [--name NAME]
//
// Writes bench/results/NAME.json (every sample) and NAME.md (the table, which is also printed).
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { syntheticCheckpoint } from '../../dist/checkpoint/synthetic.js';
import { quantile } from '../../dist/analysis/eval/statistics.js';
import { measureBandwidth } from '../../dist/engine/machine.js';
import { describeRun, runLine } from '../../tools/run_info.mjs';
import { spread } from '../spread.mjs';
import { buildNativeLlama } from './native_llama.mjs';
import { DTYPES, writeRandomGguf } from './random_gguf.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const PEER = 'node-llama-cpp';

const { values: options } = parseArgs({
  options: {
    shape: { type: 'string', default: 'smollm2-135m' },
    dtypes: { type: 'string', default: 'F16,Q8_0,Q4_0' },
    threads: { type: 'string', default: '1,2' },
    'prompt-tokens': { type: 'string', default: '512' },
    tokens: { type: 'string', default: '64' },
    rounds: { type: 'string', default: '3' },
    name: { type: 'string' },
  },
});

/** By the name in the table. */
function enginesFor(activations, native) {
  const cqil = activations.map((format, i) => [
    activations.length === 1 ? 'cqil' : `cqil, ${format}${i === 0 ? ' (default)' : ''}`,
    { script: 'time_cqil.mjs', activations: format },
  ]);
  return {
    ...Object.fromEntries(cqil),
    [PEER]: { script: 'time_peer.mjs' },
    ...(native && { 'llama.cpp, native': { script: 'time_native.mjs', native } }),
  };
}

function timeOne(engine, { script, ...more }, request) {
  return new Promise((resolve, reject) => {
    const child = execFile(
      process.execPath,
      [path.join(here, script)],
      { timeout: 600_000 },
      (error, stdout, stderr) => {
        if (error) reject(new Error(`${engine}: ${stderr || error.message}`));
        else resolve(JSON.parse(stdout));
      },
    );
    child.stdin.end(JSON.stringify({ ...request, ...more }));
  });
}

async function compare(model, engines, threads) {
  const count = (name) => Number(options[name]);
  const ids = Array.from({ length: count('prompt-tokens') }, (_, i) => 300 + ((i * 7919) % 20000));
  const request = {
    model,
    threads,
    contextLength: ids.length + count('tokens') + 8,
    warmIds: ids.slice(0, 16),
    ids,
    tokens: count('tokens'),
  };
  const samples = Object.fromEntries(Object.keys(engines).map((engine) => [engine, { prefillMs: [], decodeMs: [] }]));
  for (let round = 0; round < count('rounds'); round++) {
    for (const [engine, { prefillMs, decodeMs }] of Object.entries(samples)) {
      const run = await timeOne(engine, engines[engine], request);
      prefillMs.push(run.prefillMs);
      decodeMs.push(quantile(run.decodeMs, 0.5));
    }
  }
  return samples;
}

function rowsOf({ dtype, threads, weightBytes, bandwidthGBs, samples }) {
  const floorMs = weightBytes / bandwidthGBs / 1e6;
  return Object.entries(samples).map(([engine, { prefillMs, decodeMs }]) => {
    const prefill = prefillMs.map((ms) => (Number(options['prompt-tokens']) / ms) * 1000);
    const ratio = (ms, peerMs) => (quantile(peerMs, 0.5) / quantile(ms, 0.5)).toFixed(2);
    const { prefillMs: peerPrefillMs, decodeMs: peerDecodeMs } = samples[PEER];
    return [
      dtype,
      threads,
      engine,
      spread(decodeMs, 2),
      `${((100 * floorMs) / quantile(decodeMs, 0.5)).toFixed(0)} %`,
      ratio(decodeMs, peerDecodeMs),
      spread(prefill, 2),
      ratio(prefillMs, peerPrefillMs),
    ];
  });
}

function table(runs) {
  const head = [
    'weights',
    'threads',
    'engine',
    'ms per token',
    'of the floor',
    'decode, peer = 1',
    'prefill tokens/s',
    'prefill, peer = 1',
  ];
  return [head, head.map(() => '---'), ...runs.flatMap(rowsOf)].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

// Before anything is timed: a shape that cannot have a format would end the run halfway.
for (const dtype of options.dtypes.split(',')) {
  if (!DTYPES.includes(dtype)) throw new Error(`There is no dtype ${dtype}; expected some of ${DTYPES.join(',')}.`);
  syntheticCheckpoint(options.shape, dtype);
}
const run = describeRun('node bench/peers/compare.mjs', process.argv.slice(2));
const folder = mkdtempSync(path.join(os.tmpdir(), 'cqil-compare-'));
const runs = [];
try {
  const native = buildNativeLlama(folder);
  for (const dtype of options.dtypes.split(',')) {
    const model = path.join(folder, `${dtype}.gguf`);
    const { weightBytes, activations } = writeRandomGguf(model, options.shape, dtype);
    const engines = enginesFor(activations, native);
    for (const threads of options.threads.split(',').map(Number)) {
      console.error(`${options.shape} ${dtype}, ${threads} threads`);
      // A shared machine reads faster at one time than at another: the floor is the better of two.
      const before = await measureBandwidth(threads, 2 ** 28);
      const samples = await compare(model, engines, threads);
      const bandwidthGBs = Math.max(before, await measureBandwidth(threads, 2 ** 28));
      runs.push({ dtype, threads, weightBytes, bandwidthGBs, samples });
    }
    rmSync(model);
  }
} finally {
  rmSync(folder, { recursive: true });
}

const { dependencies } = JSON.parse(readFileSync(path.join(here, 'package.json'), 'utf8'));
const peer = `${PEER} ${dependencies[PEER]}`;
const name = options.name ?? `peer-${options.shape}`;
const results = path.join(here, '../results');
mkdirSync(results, { recursive: true });
writeFileSync(path.join(results, `${name}.json`), `${JSON.stringify({ ...run, peer, options, runs }, null, 1)}\n`);
const text = `${runLine(run)}

${options.shape}, ${options['prompt-tokens']} prompt tokens, ${options.tokens} decoded; median (min–max) of ${options.rounds} rounds, in turn with ${peer}.
The floor is the bytes of the weights over this machine's measured read bandwidth with as many threads.

${table(runs)}
`;
writeFileSync(path.join(results, `${name}.md`), text);
console.log(text);
