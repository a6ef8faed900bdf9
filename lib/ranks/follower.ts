// The program of a rank but the first: loads its share of a model, and computes what the leader tells until it lets go.
import { CqilError } from '../errors.js';
import { loadNative } from '../engine/addon.js';
import type { RankAnswer, RankOrder } from './order.js';

async function follow(order: RankOrder): Promise<void> {
  const native = loadNative();
  const { rank, size, address } = order;
  const exchange = native.openExchange({ kind: 'shm', rank, size, address });
  await exchange.meet(order.meetWithin);
  const model = await native.loadModel({ ...order.spec, rank: { ...order.share, exchange: exchange.handle } });
  exchange.close();
  await native.readModel(model, () => {});
  answer({ ready: true });
  await native.followLeader(model);
}

/** A leader that has ended meanwhile is told by `disconnect`. */
function answer(what: RankAnswer): void {
  process.send?.(what, () => {});
}

process.once('message', (order: RankOrder) => {
  follow(order)
    .catch((error: unknown) => {
      const { code, message } = error instanceof CqilError ? error : new CqilError('INTERNAL', String(error));
      if (process.connected) answer({ error: { code, message } });
      process.exitCode = 1;
    })
    .finally(() => {
      if (process.connected) process.disconnect();
    });
});
// Ctrl-C in a terminal reaches all ranks. It is the leader's to end the others.
process.on('SIGINT', () => {});
// By itself or by its leader's end.
process.on('disconnect', () => process.exit());
