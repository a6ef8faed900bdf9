// From a cold process and a cold file to the first token: time against reading the file, and peak memory.
//
//   npm run build && node bench/cold_start.mjs [--shape tinyllama-1.1b] [--dtype Q8_0] [--threads 2] [--rounds 5]
//
// Each round drops the file's pages from the system's cache (dd's nocache advice) and times, in turn, `cat FILE` and a process that loads
// the model, gives one token and exits. Both read every page once, so their ratio is what loading adds to reading. Needs GNU dd.
// Writes bench/results/cold-start-SHAPE-DTYPE.json and .md.
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { describeRun, runLine } from '../tools/run_info.mjs';
import { writeRandomGguf } from './peers/random_gguf.mjs';

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
  writeRandomGguf(file, options.shape, options.dtype);
  execFileSync('sync');
  for (let round = 0; round < Number(options.rounds); round++) {
    evict();
    samples.readMs.push(await timed('sh', ['-c', 'cat "$1" > /dev/null', 'sh', file]).then(({ ms }) => ms));
    evict();
    const first = await timed(process.execPath, [path.join(here, 'first_token.mjs'), file, options.threads, String(CONTEXT)]);
    const { peak, file: size, kv } = JSON.parse(first.stdout);
    [fileBytes, kvBytes] = [size, kv];
    samples.firstTokenMs.push(first.ms);
    samples.peakBytes.push(peak);
    samples.nodeBytes.push(JSON.parse((await timed(process.execPath, ['-e', 'process.stdout.write(JSON.stringify(process.resourceUsage().maxRSS * 1024))'])).stdout));
  }
} finally {
  rmSync(folder, { recursive: true });
}

const ratio = median(samples.firstTokenMs) / median(samples.readMs);
const memory = median(samples.peakBytes) / (fileBytes + kvBytes);
const name = path.join(here, 'results', `cold-start-${options.shape}-${options.dtype}`);
const text = `${runLine(run)}

${options.shape} at ${options.dtype}, ${mb(fileBytes)} MB, ${options.threads} threads, ${CONTEXT} tokens of context; median (min–max) of ${options.rounds} rounds in turn, the file's pages
dropped before each.

| | |
|---|---|
| \`cat FILE > /dev/null\` | ${spread(samples.readMs)} ms |
| \`node\` starts, loads, gives its first token, exits | ${spread(samples.firstTokenMs)} ms |
| the ratio of the two | ${ratio.toFixed(2)} |
| peak resident memory | ${mb(median(samples.peakBytes))} MB: ${memory.toFixed(3)} of weights and KV cache (${mb(fileBytes)} + ${mb(kvBytes)} MB); Node.js alone takes ${mb(median(samples.nodeBytes))} MB |
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
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let stdout = '';
  child.stdout.on('data', (data) => (stdout += data));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => (code === 0 ? resolve({ ms: performance.now() - start, stdout }) : reject(new Error(`${command} exits with ${code}`))));
  });
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

function spread(values) {
  return `${median(values).toFixed(0)} (${Math.min(...values).toFixed(0)}–${Math.max(...values).toFixed(0)})`;
}

function mb(bytes) {
  return (bytes / 1e6).toFixed(0);
}
