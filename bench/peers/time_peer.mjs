// One timed run of node-llama-cpp in a process of its own; request and answer as in time_cqil.mjs.
import { openModel, startPeer } from './peer.mjs';
import { readRequest } from './request.mjs';

const { warmIds, ids, tokens, ...options } = await readRequest();
const llama = await startPeer(options.threads);
const { sequence } = await openModel(llama, options);
await run(warmIds, 2);
await sequence.clearHistory();
process.stdout.write(JSON.stringify(await run(ids, tokens)));
await llama.dispose();

/** Prefill and the first token, then one greedy token per step, as a user's loop would. */
async function run(prompt, count) {
  const stepMs = [];
  let last = performance.now();
  for await (const _token of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
    const now = performance.now();
    stepMs.push(now - last);
    last = now;
    if (stepMs.length > count) break;
  }
  return { prefillMs: stepMs[0], decodeMs: stepMs.slice(1) };
}
