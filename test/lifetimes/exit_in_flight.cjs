// node exit_in_flight.cjs <package> <model>
// Leaves with work in flight and nothing closed, as a user's script may.
const [entry, model] = process.argv.slice(2);
const { loadModel } = require(entry);

(async () => {
  const loaded = await loadModel(model, { threads: 2, contextLength: 4096 });
  const session = loaded.createSession({ contextLength: 4096 });
  void session.prefill(Array.from({ length: 4000 }, (_, i) => i % loaded.config.vocabSize));
  setTimeout(() => process.exit(0), 5);
})();
