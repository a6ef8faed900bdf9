// One timed run of cqil in a process of its own. One JSON request on stdin:
//   { model, threads, contextLength, warmIds, ids, tokens, plan?, activations? }
// One JSON answer on stdout: { prefillMs (prompt and first token), decodeMs: [tokens] }.
import { loadModel } from '../../dist/index.js';
import { readRequest } from './request.mjs';

const { model: path, warmIds, ids, tokens, ...options } = await readRequest();
const model = await loadModel(path, { ...options, backend: 'cpu' });
const session = model.createSession({ contextLength: options.contextLength });
await run(warmIds, 2);
session.truncate(0);
process.stdout.write(JSON.stringify(await run(ids, tokens)));
await model.dispose();

/** Prefill and the first token, then one greedy token per step, as a user's loop would. */
async function run(prompt, count) {
  const start = performance.now();
  let token = await next(prompt);
  const prefillMs = performance.now() - start;
  const decodeMs = [];
  for (let i = 0; i < count; i++) {
    const before = performance.now();
    token = await next([token]);
    decodeMs.push(performance.now() - before);
  }
  return { prefillMs, decodeMs };
}

/** The likeliest token, as `generate` asks for it at temperature 0. */
async function next(tokens) {
  return (await session.shortlist(tokens, 1, { ahead: true })).ids[0];
}
