// From a cold process and a cold file to the first token: time against reading what it reads, and peak memory.
//
//   npm run build && node bench/cold_start.mjs [--shape tinyllama-1.1b] [--dtype Q8_0] [--threads 2] [--rounds 5] [--name NAME] [--disk TEXT]
//
// Each round drops the file's pages from the system's cache (dd's nocache advice) before each of these, in turn: `cat
// FILE` to nowhere and into memory, and a process that loads the model and gives one token, with float32 activations,
// which uses the file's pages where they are, and with int8, which copies them. Ratios compare what touches as many
// pages: what loading adds to reading. The same process runs once more on the file that is cached then. Each time, as
// much memory as the larger of them takes is written and freed first: a virtual machine may not have it from its host
// yet, which gives it ten times as slowly as a disk gives the file. Needs GNU dd and /dev/shm. A system that can limit
// the disk of a process shows how the ratio depends on it; --disk then says so in the table. Writes
// bench/results/NAME.json and .md; NAME is cold-start-SHAPE-DTYPE unless it is given.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { quantile } from '../dist/analysis/eval/statistics.js';
import { kvBytesPerPosition } from '../dist/engine/kv_cache.js';
import { describeRun, runLine } from '../tools/run_info.mjs';
import { writeRandomGguf } from './peers/random_gguf.mjs';
import { evict } from './evict.mjs';
import { spread } from './spread.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const CONTEXT = 512;
/** Bytes of Node.js, our JavaScript and tokenizer, and the slices of the file that are on their way to the int8 copy. */
const FIXED_BYTES = 100e6;
/**
 * Taken beforehand besides the file's pages and their copy: that of Node.js, and what the system does not give back in
 * whole.
 */
const MORE_BYTES = 600e6;
const { values: options } = parseArgs({
  options: {
    shape: { type: 'string', default: 'tinyllama-1.1b' },
    dtype: { type: 'string', default: 'Q8_0' },
    threads: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '5' },
    name: { type: 'string' },
    disk: { type: 'string' }, // what the table is to say of it
    folder: { type: 'string', default: here }, // where the file lies: on a disk, not in memory
  },
});

const run = describeRun('node bench/cold_start.mjs', process.argv.slice(2));
const folder = mkdtempSync(path.join(options.folder, 'cold-start-'));
const file = path.join(folder, 'model.gguf');
const copy = path.join(mkdtempSync('/dev/shm/cold-start-'), 'copy');
const READINGS = { float32: ['/dev/null', '`cat FILE > /dev/null`'], int8: [copy, '`cat FILE > /dev/shm/COPY`'] };
const samples = Object.fromEntries(
  Object.keys(READINGS).map((activations) => [
    activations,
    { readMs: [], firstTokenMs: [], cachedMs: [], peakBytes: [] },
  ]),
);
const nodeMs = [];
let fileBytes;
let kvBytes;
try {
  const { config } = writeRandomGguf(file, options.shape, options.dtype);
  fileBytes = statSync(file).size;
  kvBytes = CONTEXT * kvBytesPerPosition(config, 'f16');
  execFileSync('sync');
  for (let round = 0; round < Number(options.rounds); round++) {
    const begin = Date.now();
    nodeMs.push(Number(execFileSync(process.execPath, ['-p', 'Date.now()'], { encoding: 'utf8' })) - begin);
    for (const [activations, [to]] of Object.entries(READINGS)) {
      const { readMs, firstTokenMs, cachedMs, peakBytes } = samples[activations];
      const both = [
        () => {
          const begin = performance.now();
          execFileSync('sh', ['-c', 'cat "$1" > "$2"', 'sh', file, to]);
          readMs.push(performance.now() - begin);
          rmSync(copy, { force: true });
        },
        () => {
          const first = firstToken(activations);
          firstTokenMs.push(first.ms);
          peakBytes.push(first.peakBytes);
          cachedMs.push(firstToken(activations).ms);
        },
      ];
      // Either goes first as often, for what one leaves behind for the other.
      for (const one of round % 2 ? both.reverse() : both) {
        evict(file);
        takeMemory(2 * fileBytes + MORE_BYTES);
        one();
      }
    }
  }
} finally {
  rmSync(folder, { recursive: true });
  rmSync(path.dirname(copy), { recursive: true });
}

const nodeBytes = Number(
  execFileSync(
    process.execPath,
    ['-p', `1024 * /VmHWM:\\s+(\\d+)/.exec(fs.readFileSync('/proc/self/status', 'utf8'))[1]`],
    { encoding: 'utf8' },
  ),
);
const rows = Object.entries(samples).map(([activations, { readMs, firstTokenMs, cachedMs, peakBytes }]) => {
  const ratio = quantile(firstTokenMs, 0.5) / quantile(readMs, 0.5);
  const peak = quantile(peakBytes, 0.5);
  const rest = peak / (fileBytes + kvBytes + FIXED_BYTES);
  return (
    `| ${activations} | ${spread(firstTokenMs, 0)} | ${spread(readMs, 0)}: ${READINGS[activations][1]} | ` +
    `${ratio.toFixed(2)} | ${spread(cachedMs, 0)} | ${mb(peak)} | ${rest.toFixed(3)} |`
  );
});
const name = path.join(here, 'results', options.name ?? `cold-start-${options.shape}-${options.dtype}`);
const text = `${runLine(run)}

${options.shape} at ${options.dtype}, ${mb(fileBytes)} MB, ${options.threads} threads, ${CONTEXT} tokens of context (${mb(kvBytes)} MB of keys and values); median (min–max) of
${options.rounds} rounds in turn, the file's pages dropped and memory taken from the host before each.
${options.disk === undefined ? '' : `The disk: ${options.disk}. `}Node.js alone takes ${mb(nodeBytes)} MB, and ${spread(nodeMs, 0)} ms to its first line.

| activations | ms from the start of \`node\` to the first token | ms of reading alone | ratio | ms from a cached file | peak resident MB | of weights, KV cache and ${mb(FIXED_BYTES)} MB |
|---|---|---|---|---|---|---|
${rows.join('\n')}
`;
writeFileSync(
  `${name}.json`,
  `${JSON.stringify({ ...run, options: { ...options, folder: undefined }, fileBytes, kvBytes, nodeBytes, nodeMs, samples }, null, 1)}\n`,
);
writeFileSync(`${name}.md`, text);
console.log(text);

function firstToken(activations) {
  const start = Date.now();
  const first = JSON.parse(
    execFileSync(
      process.execPath,
      [path.join(here, 'first_token.mjs'), file, options.threads, String(CONTEXT), activations],
      { encoding: 'utf8' },
    ),
  );
  return { ms: first.at - start, peakBytes: first.peakBytes };
}

function takeMemory(bytes) {
  execFileSync('dd', ['if=/dev/zero', `of=${copy}`, 'bs=1M', `count=${Math.ceil(bytes / 2 ** 20)}`], {
    stdio: 'ignore',
  });
  rmSync(copy);
}

function mb(bytes) {
  return (bytes / 1e6).toFixed(0);
}
