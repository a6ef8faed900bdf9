// One process of cold_start.mjs: node bench/first_token.mjs FILE THREADS CONTEXT ACTIVATIONS loads the model, computes
// one token and prints the time it had it (ms since 1970) and the peak of its resident memory in bytes.
import { readFileSync } from 'node:fs';
import { loadModel } from '../dist/index.js';

const [file, threads, contextLength, activations] = process.argv.slice(2);
const model = await loadModel(file, {
  backend: 'cpu',
  threads: Number(threads),
  contextLength: Number(contextLength),
  kvCache: 'f16',
  activations,
});
const logits = await model.createSession().prefill([1]);
if (!Number.isFinite(logits[0])) throw new Error('the first logit is not finite');
const at = Date.now();
// Not maxRSS, which a process inherits from the one that started it.
const [, peakKiB] = /VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'));
console.log(JSON.stringify({ at, peakBytes: peakKiB * 1024 }));
await model.dispose();
