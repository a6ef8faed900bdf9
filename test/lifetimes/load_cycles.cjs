// node load_cycles.cjs <package> <model> <count> [leak]
// Loads, uses and disposes of a model again and again; prints the resident bytes after every fourth cycle. With "leak" each cycle keeps as
// much as a forgotten KV cache would.
const [entry, model, count, leak] = process.argv.slice(2);
const { loadModel } = require(entry);
const EVERY = 4;
const kept = [];

async function cycle() {
  const loaded = await loadModel(model, { threads: 2, contextLength: 512 });
  const session = loaded.createSession({ contextLength: 512 });
  await session.prefill(Array.from({ length: 64 }, (_, i) => i));
  await session.decode(1);
  await loaded.dispose();
  if (leak) kept.push(Buffer.alloc(400_000, 1));
}

function residentBytes() {
  for (let i = 0; i < 3; i++) globalThis.gc();
  return process.memoryUsage.rss();
}

(async () => {
  const samples = [];
  for (let i = 1; i <= Number(count); i++) {
    await cycle();
    if (i % EVERY === 0) samples.push(residentBytes());
  }
  process.stdout.write(JSON.stringify({ every: EVERY, samples }));
})();
