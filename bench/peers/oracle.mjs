// What node-llama-cpp computes, for test/peer.test.ts. A JSON array of requests on stdin, a JSON array of answers on
// stdout:
//   { model, contextLength, ids }                → { logProbs: [ids.length][vocabSize] }  (nats)
//   { model, contextLength, ids, greedy: count } → { tokens: [count] }
//   { model, contextLength, text }               → { tokens }
//   { model, contextLength, texts }              → { tokenized: [texts.length][] }
import { openModel, startPeer } from './peer.mjs';
import { readRequest } from './request.mjs';

async function answer(llama, request) {
  const { model, sequence } = await openModel(llama, { ...request, exact: true });
  try {
    if (request.text !== undefined) return { tokens: [...model.tokenize(request.text)] };
    if (request.texts !== undefined) return { tokenized: request.texts.map((text) => [...model.tokenize(text)]) };
    if (request.greedy !== undefined) return { tokens: await greedy(sequence, request.ids, request.greedy) };
    return { logProbs: await logProbs(sequence, request.ids) };
  } finally {
    await model.dispose();
  }
}

async function logProbs(sequence, ids) {
  const input = ids.map((id) => [id, { generateNext: { logits: true, token: true, options: { temperature: 0 } } }]);
  const results = await sequence.controlledEvaluate(input);
  return results.map(({ next }) => logSoftmax(next.logits));
}

/** `logits` maps token → logit, in any order. */
function logSoftmax(logits) {
  const row = Array.from({ length: logits.size }, (_, token) => logits.get(token));
  const max = Math.max(...row);
  const logSum = max + Math.log(row.reduce((total, logit) => total + Math.exp(logit - max), 0));
  return row.map((logit) => logit - logSum);
}

async function greedy(sequence, ids, count) {
  const tokens = [];
  for await (const token of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
    tokens.push(token);
    if (tokens.length === count) break;
  }
  return tokens;
}

const llama = await startPeer(1);
const answers = [];
for (const request of await readRequest()) answers.push(await answer(llama, request));
await llama.dispose();
process.stdout.write(JSON.stringify(answers));
