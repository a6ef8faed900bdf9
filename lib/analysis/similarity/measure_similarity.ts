import { CqilError } from '../../errors.js';
import { counted } from '../../util/count.js';
import type { Model } from '../../model/model.js';
import { MAX_TRACE } from '../../session/session.js';
import { SimilarityStatistics, type Similarity } from './similarity.js';

/** Tokens that see one another. Later positions add little: layers of a long context are no less alike. */
const LONGEST_WINDOW = 512;
/** Bytes of one trace; of a deep and wide model fewer tokens fit at a time. */
const TRACE_BYTES = 32 << 20;

export interface SimilarityOptions {
  signal?: AbortSignal;
  /** Counts tokens. */
  onProgress?: (done: number, total: number) => void;
}

/** Tokens per window: at most 512, and what the model's context holds. */
export function similarityWindow(model: Pick<Model, 'config'>): number {
  return Math.min(LONGEST_WINDOW, model.config.contextLength);
}

/**
 * How alike the inputs of the sequential model's layers are over token ids: one pass, in windows that do not overlap,
 * each in a fresh context. The first token of a window is context only, because it sees nothing and trained models
 * treat it apart.
 *
 * @throws CqilError INVALID_ARGUMENT for fewer than two tokens or ids outside the vocabulary; ABORTED; DISPOSED;
 * NOT_FINITE when the model computes values that are infinite or not numbers.
 */
export async function measureSimilarity(
  model: Model,
  ids: readonly number[],
  { signal, onProgress }: SimilarityOptions = {},
): Promise<Similarity> {
  if (ids.length < 2)
    throw new CqilError('INVALID_ARGUMENT', `The text has ${counted(ids.length, 'token')}, expected at least 2.`);
  const { nLayers, dim } = model.config;
  const window = similarityWindow(model);
  const batch = Math.max(
    1,
    Math.min(MAX_TRACE, Math.floor(TRACE_BYTES / (nLayers * 3 * dim * Float32Array.BYTES_PER_ELEMENT))),
  );
  const statistics = new SimilarityStatistics(nLayers, dim);
  const session = model.createSession({ plan: 'sequential', contextLength: Math.min(window, ids.length) });
  try {
    for (let from = 0; from < ids.length;) {
      const end = Math.min(from + batch, from - session.position + window, ids.length);
      const first = session.position === 0 ? 1 : 0;
      statistics.add(await session.trace(ids.slice(from, end), { signal }), end - from, first);
      if (session.position === window) session.truncate(0);
      from = end;
      onProgress?.(from, ids.length);
    }
    return statistics.result();
  } finally {
    session.close();
  }
}
