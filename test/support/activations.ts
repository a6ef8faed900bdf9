import type { Activations } from '../../lib/engine/activations.js';
import { loadModel } from '../../lib/model/load.js';
import { expectSameBits } from '../reference/engine.js';

// Widths are whole blocks of every format, the numbers of rows are odd.
export const SHAPE = { dim: 256, hiddenDim: 512, headDim: 64, nHeads: 4, nKvHeads: 1, nLayers: 2, vocabSize: 261 };

/**
 * Asks for the bits of `rows` under the plan P2-D1-S0-E2, whatever the threads, the execution and the split of the
 * prompt.
 */
export async function expectSameInPieces(
  file: string,
  activations: Activations,
  ids: number[],
  rows: Float32Array[],
): Promise<void> {
  for (const execution of ['wide', 'lanes'] as const) {
    const threaded = await loadModel(file, { threads: 3, kvCache: 'f32', activations, plan: 'P2-D1-S0-E2', execution });
    const session = threaded.createSession();
    await session.prefill(ids.slice(0, 7));
    expectSameBits([await session.prefill(ids.slice(7))], rows.slice(-1), execution);
    await threaded.dispose();
  }
}
