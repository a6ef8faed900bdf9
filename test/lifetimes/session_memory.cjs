// node session_memory.cjs <package> <model> <sessions> <rounds>
// Opens, uses and closes sessions; prints resident bytes before, with all of the first round open, and after each round is closed.
const [entry, file, count, rounds] = process.argv.slice(2);
const { loadModel } = require(entry);

function residentBytes() {
  for (let i = 0; i < 3; i++) globalThis.gc();
  return process.memoryUsage().rss;
}

(async () => {
  const model = await loadModel(file, { threads: 2 });
  const use = async (session) => void (await session.prefill(Array.from({ length: 32 }, (_, i) => i)));
  const first = model.createSession();
  await use(first);
  first.close();
  const before = residentBytes();
  let open;
  const closed = [];
  for (let round = 0; round < Number(rounds); round++) {
    const sessions = Array.from({ length: Number(count) }, () => model.createSession());
    for (const session of sessions) await use(session);
    open ??= residentBytes();
    for (const session of sessions) session.close();
    closed.push(residentBytes());
  }
  await model.dispose();
  process.stdout.write(JSON.stringify({ before, open, closed }));
})();
