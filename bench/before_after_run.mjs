// One side of before_after.mjs, which forks it: node bench/before_after_run.mjs CHECKOUT, with one request as a message.
// Loads the model with the build of that checkout and reports its first token. If the request says so, that is all;
// otherwise every further message asks for a turn: a prompt and the tokens after it, timed apart.
import { createHash } from 'node:crypto';
import { createRequire } from 'node:module';
import path from 'node:path';

const [checkout] = process.argv.slice(2);
const { model: file, plan, threads, ids, tokens, prompts, contextLength, firstOnly } = await message();
const { loadModel } = createRequire(import.meta.url)(path.join(path.resolve(checkout), 'dist/index.js'));
const model = await loadModel(file, { backend: 'cpu', plan, threads, contextLength });
const session = model.createSession();
await next([ids[0]], false);
process.send({ at: performance.timeOrigin + performance.now() });
if (firstOnly) {
  await model.dispose();
  process.disconnect();
} else {
  await turn();
  session.truncate(0);
  const logits = await session.prefill(ids);
  process.send({ hash: createHash('sha256').update(new Uint8Array(logits.buffer)).digest('hex') });
  for (;;) {
    if ((await message()) === 'end') break;
    process.send(await turn());
  }
  await model.dispose();
  process.disconnect();
}

/** Milliseconds of a prompt with its first token, and of each token after it, decoded as at temperature 0. */
async function turn() {
  let token;
  const start = performance.now();
  for (let i = 0; i < prompts; i++) {
    session.truncate(0);
    token = await next(ids, i === prompts - 1);
  }
  const between = performance.now();
  for (let i = tokens; i > 0; i--) token = await next([token], i > 1);
  return { prefillMs: (between - start) / prompts, decodeMs: (performance.now() - between) / tokens };
}

async function next(ids, ahead) {
  return (await session.shortlist(ids, 1, { ahead })).ids[0];
}

function message() {
  return new Promise((resolve) => process.once('message', resolve));
}
