// node load_cycles.cjs <package> <model> <count>
// Loads, uses and disposes of a model again and again; prints resident bytes after a warm-up and at the end.
const [entry, model, count] = process.argv.slice(2);
const { loadModel } = require(entry);

async function cycle() {
  const loaded = await loadModel(model, { threads: 2, contextLength: 512 });
  const session = loaded.createSession({ contextLength: 512 });
  await session.prefill(Array.from({ length: 64 }, (_, i) => i));
  await session.decode(1);
  await loaded.dispose();
}

function residentBytes() {
  for (let i = 0; i < 3; i++) globalThis.gc();
  return process.memoryUsage().rss;
}

(async () => {
  for (let i = 0; i < 20; i++) await cycle();
  const before = residentBytes();
  for (let i = 0; i < Number(count); i++) await cycle();
  process.stdout.write(JSON.stringify({ before, after: residentBytes() }));
})();
