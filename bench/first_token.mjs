// One process of cold_start.mjs: node bench/first_token.mjs FILE THREADS CONTEXT loads the model and computes one token.
// One JSON answer on stdout: bytes of { peak (resident), file, kv }.
import { statSync } from 'node:fs';
import { loadModel } from '../dist/index.js';

const [file, threads, contextLength] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const model = await loadModel(file, { backend: 'cpu', threads, contextLength });
const logits = await model.createSession().prefill([1]);
if (!Number.isFinite(logits[0])) throw new Error('the first logit is not finite');
const { nLayers, nKvHeads, headDim } = model.config;
const kv = 2 * nLayers * nKvHeads * headDim * 4 * contextLength; // keys and values in f32
process.stdout.write(JSON.stringify({ peak: process.resourceUsage().maxRSS * 1024, file: statSync(file).size, kv }));
await model.dispose();
