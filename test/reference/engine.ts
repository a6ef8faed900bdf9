import { expect } from 'vitest';
import type { Session } from '../../lib/session/session.js';
import { logSoftmax } from './forward.js';
import { firstDifference } from './measure.js';

/** Logits [ids.length][vocabSize], one decode per token. */
export async function decodeAll(session: Session, ids: ArrayLike<number>): Promise<Float32Array[]> {
  const rows: Float32Array[] = [];
  for (const id of Array.from(ids)) rows.push(await session.decode(id));
  return rows;
}

/** Log-probabilities (nats) [ids.length][vocabSize] out of the engine's logits, one decode per token. */
export async function engineLogProbs(session: Session, ids: ArrayLike<number>): Promise<Float64Array[]> {
  return (await decodeAll(session, ids)).map(logSoftmax);
}

/** Fails, naming the first row and element that differ, unless all rows have the same bits. */
export function expectSameBits(actual: Float32Array[], expected: Float32Array[], label: string): void {
  expect(actual.length, label).toBe(expected.length);
  actual.forEach((row, i) =>
    expect(firstDifference(row, expected[i]!), `${label}: first difference in row ${i}`).toBe(-1),
  );
}

/** Token ids that look random and are the same every time: [count] in [0, vocabSize). */
export function someIds(count: number, vocabSize: number, seed = 1): number[] {
  let state = seed >>> 0;
  return Array.from({ length: count }, () => {
    // A linear congruential generator (Numerical Recipes' constants); its upper bits are the good ones.
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * vocabSize);
  });
}
