// node terminate_workers.cjs <package> <model> <count> prefill|ahead
// Ends worker threads while the addon works for them; the process must live through every one of them.
const { Worker } = require('node:worker_threads');

const [entry, model, count, work] = process.argv.slice(2);

// Both calls are in flight when the worker ends: one in the engine, one waiting for it. Or a token is that nobody has asked for yet.
const source = `
  const { parentPort, workerData } = require('node:worker_threads');
  const { loadModel } = require(workerData.entry);
  (async () => {
    const model = await loadModel(workerData.model, { threads: 2, contextLength: 4096 });
    const ids = Array.from({ length: 4000 }, (_, i) => i % model.config.vocabSize);
    const sessions = [model.createSession({ contextLength: 4096 }), model.createSession({ contextLength: 4096 })];
    parentPort.postMessage('busy');
    if (workerData.work === 'prefill') await Promise.all(sessions.map((session) => session.prefill(ids)));
    for (let list, i = 0; workerData.work === 'ahead'; i++) {
      if (i % 1000 === 0) sessions[0].truncate(0);
      list = await sessions[0].shortlist([list?.ids[0] ?? 1], 1, { ahead: true });
    }
    parentPort.postMessage('done');
  })();
`;

async function terminateOne(delayMs) {
  const worker = new Worker(source, { eval: true, workerData: { entry, model, work } });
  const messages = [];
  await new Promise((resolve, reject) => {
    worker.on('error', reject);
    worker.on('message', (message) => {
      messages.push(message);
      if (message === 'busy') setTimeout(resolve, delayMs);
    });
  });
  await worker.terminate();
  return messages.includes('done');
}

(async () => {
  let finished = 0;
  for (let i = 0; i < Number(count); i++) if (await terminateOne((i % 5) * 3)) finished++;
  process.stdout.write(JSON.stringify({ terminated: Number(count) - finished, finished }));
})();
