// node cut_while_in_use.cjs <package> <model> <folder>
// Cuts model files short while a worker-side forward reads them, a little later each time; prints the codes of what came of it.
const { copyFileSync, truncateSync } = require('node:fs');
const path = require('node:path');
const [entry, source, folder] = process.argv.slice(2);
const { loadModel } = require(entry);

(async () => {
  const codes = [];
  for (const activations of ['float32', 'int8'])
    for (let delay = 0; delay < 12; delay++) {
      const file = path.join(folder, 'cut.gguf');
      copyFileSync(source, file);
      const model = await loadModel(file, { threads: 2, activations });
      const session = model.createSession();
      const call = session.prefill(Array.from({ length: 500 }, (_, i) => i + 1));
      await new Promise((resolve) => setTimeout(resolve, delay));
      truncateSync(file, 20_000);
      const after = call.then(() => session.decode(1));
      codes.push(await after.then(() => 'done', (error) => error.code));
      await model.dispose();
    }
  process.stdout.write(JSON.stringify({ codes }));
})();
