import type { ModelConfig } from '../checkpoint/types.js';
import { CqilError } from '../errors.js';
import { absolutePath } from '../util/location.js';
import type { ModelHandle, NativeAddon } from '../engine/native.js';
import type { Batcher } from './batcher.js';

/** What adapted weights need of their model. */
export interface AdaptedHost {
  readonly native: Pick<NativeAddon, 'loadModel' | 'disposeModel'>;
  readonly queue: Pick<Batcher, 'run'>;
  readonly config: ModelConfig;
  /** The weights as they are in the checkpoint. */
  readonly base: ModelHandle;
  /** Whether the weights are random. They belong to no checkpoint, so an adapter would mean nothing. */
  readonly random: boolean;
}

/** To be said before random weights of a large shape are made, where that is known. */
export function randomWithAdapter(adapter: string): CqilError {
  return new CqilError(
    'INVALID_PLAN',
    `The plan has the adapter ${adapter}, and the model has random weights; expected a plan without an adapter.`,
  );
}

/** Weights with an adapter merged in. */
export interface Merged {
  readonly handle: ModelHandle;
  /** Tells them from those of other adapters, and of the same one before its files were written to. */
  readonly serial: number;
}

/** A model's weights with adapters merged in, each set beside the model's own, which stay as they are. */
export class AdaptedWeights {
  readonly #host: AdaptedHost;
  /** By the adapter's folder. `state`: that of its files when they were read. */
  readonly #merged = new Map<string, Merged & { state: string }>();
  #count = 0;
  readonly #loading = new Map<string, Promise<void>>();

  constructor(host: AdaptedHost) {
    this.#host = host;
  }

  /**
   * Merges an adapter, unless it is merged already and its files are the same. Sessions keep the weights that they were
   * made with. Throws what `openLora` throws, INVALID_PLAN, OUT_OF_MEMORY.
   */
  load(adapter: string): Promise<void> {
    const folder = absolutePath(adapter, 'The adapter');
    let loading = this.#loading.get(folder);
    if (!loading) {
      loading = this.#load(folder).finally(() => this.#loading.delete(folder));
      this.#loading.set(folder, loading);
    }
    return loading;
  }

  /** Throws INVALID_PLAN for an adapter that is not merged yet. */
  weights(adapter: string): Merged {
    const merged = this.#merged.get(absolutePath(adapter, 'The adapter'));
    if (!merged)
      throw new CqilError(
        'INVALID_PLAN',
        `The adapter ${adapter} of the plan is not merged yet; expected model.prepare(plan) to be awaited before ` +
          'sessions of the plan are made.',
      );
    return merged;
  }

  /**
   * Frees an adapter's weights. Sessions that use them keep them until they are closed; resolves when they are freed.
   */
  async release(adapter: string): Promise<void> {
    const folder = absolutePath(adapter, 'The adapter');
    const merged = this.#merged.get(folder);
    this.#merged.delete(folder);
    if (merged) await this.#host.native.disposeModel(merged.handle);
  }

  async dispose(): Promise<void> {
    await Promise.all(Array.from(this.#merged.keys(), (folder) => this.release(folder)));
  }

  async #load(folder: string): Promise<void> {
    const { native, queue, config, base, random } = this.#host;
    if (random) throw randomWithAdapter(folder);
    const { adapterState, openLora } = await import('../checkpoint/lora.js');
    // Noted before the files are read: one that is written to meanwhile is read again the next time.
    const state = await adapterState(folder);
    const before = this.#merged.get(folder);
    // What was merged stays of use where the files are gone.
    if (before && (state === undefined || state === before.state)) return;
    const { file, pairs } = await openLora(folder, config);
    // In turn with the forwards, which use the same threads.
    const handle = await queue.run(() => native.loadModel({ base, file, pairs }));
    const replaced = this.#merged.get(folder);
    this.#merged.set(folder, { handle, state: state ?? '', serial: ++this.#count });
    // Freed once the last session that uses it is closed.
    if (replaced) void native.disposeModel(replaced.handle);
  }
}
