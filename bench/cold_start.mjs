// From a cold process and a cold file to the first token: time against reading the file, and peak memory.
//
//   npm run build && node bench/cold_start.mjs [--shape tinyllama-1.1b] [--dtype Q8_0] [--threads 2] [--rounds 5]
//
// Each round drops the file's pages from the system's cache (dd's nocache advice) and times, in turn, `cat FILE` and a process that loads
// the model, gives one token and exits. Both read every page once, so their ratio is what loading adds to reading. Needs GNU dd.
// Writes bench/results/cold-start-SHAPE-DTYPE.json and .md.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { quantile } from '../dist/eval/statistics.js';
import { kvBytesPerPosition } from '../dist/kv_cache.js';
import { describeRun, runLine } from '../tools/run_info.mjs';
import { writeRandomGguf } from './peers/random_gguf.mjs';
import { spread } from './spread.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const CONTEXT = 512;
const { values: options } = parseArgs({
  options: {
    shape: { type: 'string', default: 'tinyllama-1.1b' },
    dtype: { type: 'string', default: 'Q8_0' },
    threads: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '5' },
    folder: { type: 'string', default: here }, // where the file lies: on a disk, not in memory
  },
});

const run = describeRun('node bench/cold_start.mjs', process.argv.slice(2));
const folder = mkdtempSync(path.join(options.folder, 'cold-start-'));
const file = path.join(folder, 'model.gguf');
const samples = { readMs: [], firstTokenMs: [], peakBytes: [], nodeBytes: [] };
let fileBytes;
let kvBytes;
try {
  const { config } = writeRandomGguf(file, options.shape, options.dtype);
  fileBytes = statSync(file).size;
  kvBytes = CONTEXT * kvBytesPerPosition(config, 'f32');
  execFileSync('sync');
  for (let round = 0; round < Number(options.rounds); round++) {
    evict();
    samples.readMs.push(timed('sh', ['-c', 'cat "$1" > /dev/null', 'sh', file]).ms);
    evict();
    const first = timed(process.execPath, [path.join(here, 'first_token.mjs'), file, options.threads, String(CONTEXT)]);
    samples.firstTokenMs.push(first.ms);
    samples.peakBytes.push(Number(first.stdout));
    samples.nodeBytes.push(Number(timed(process.execPath, ['-p', 'process.resourceUsage().maxRSS * 1024']).stdout));
  }
} finally {
  rmSync(folder, { recursive: true });
}

const ratio = quantile(samples.firstTokenMs, 0.5) / quantile(samples.readMs, 0.5);
const memory = quantile(samples.peakBytes, 0.5) / (fileBytes + kvBytes);
const name = path.join(here, 'results', `cold-start-${options.shape}-${options.dtype}`);
const text = `${runLine(run)}

${options.shape} at ${options.dtype}, ${mb(fileBytes)} MB, ${options.threads} threads, ${CONTEXT} tokens of context; median (min–max) of ${options.rounds} rounds in turn, the file's pages
dropped before each.

| | |
|---|---|
| \`cat FILE > /dev/null\` | ${spread(samples.readMs, 0)} ms |
| \`node\` starts, loads, gives its first token, exits | ${spread(samples.firstTokenMs, 0)} ms |
| the ratio of the two | ${ratio.toFixed(2)} |
| peak resident memory | ${mb(quantile(samples.peakBytes, 0.5))} MB: ${memory.toFixed(3)} of weights and KV cache (${mb(fileBytes)} + ${mb(kvBytes)} MB); Node.js alone takes ${mb(quantile(samples.nodeBytes, 0.5))} MB |
`;
writeFileSync(`${name}.json`, `${JSON.stringify({ ...run, options: { ...options, folder: undefined }, fileBytes, kvBytes, samples }, null, 1)}\n`);
writeFileSync(`${name}.md`, text);
console.log(text);

function evict() {
  execFileSync('dd', [`if=${file}`, 'iflag=nocache', 'count=0'], { stdio: 'ignore' });
}

/** Milliseconds until a command has ended, and what it printed. */
function timed(command, args) {
  const start = performance.now();
  const stdout = execFileSync(command, args, { encoding: 'utf8' });
  return { ms: performance.now() - start, stdout };
}

function mb(bytes) {
  return (bytes / 1e6).toFixed(0);
}
