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

/** A model's weights with adapters merged in, each set beside the model's own, which stay as they are. */
export class AdaptedWeights {
  readonly #host: AdaptedHost;
  /** By the adapter's folder. */
  readonly #handles = new Map<string, ModelHandle>();
  readonly #loading = new Map<string, Promise<void>>();

  constructor(host: AdaptedHost) {
    this.#host = host;
  }

  /** Merges an adapter, unless it is merged already. Throws what `openLora` throws, INVALID_PLAN, OUT_OF_MEMORY. */
  load(adapter: string): Promise<void> {
    const folder = absolutePath(adapter, 'The adapter');
    if (this.#handles.has(folder)) return Promise.resolve();
    let loading = this.#loading.get(folder);
    if (!loading) {
      loading = this.#load(folder).finally(() => this.#loading.delete(folder));
      this.#loading.set(folder, loading);
    }
    return loading;
  }

  /** Throws INVALID_PLAN for an adapter that is not merged yet. */
  handle(adapter: string): ModelHandle {
    const handle = this.#handles.get(absolutePath(adapter, 'The adapter'));
    if (!handle)
      throw new CqilError(
        'INVALID_PLAN',
        `The adapter ${adapter} of the plan is not merged yet; expected model.prepare(plan) to be awaited before ` +
          'sessions of the plan are made.',
      );
    return handle;
  }

  /**
   * Frees an adapter's weights. Sessions that use them keep them until they are closed; resolves when they are freed.
   */
  async release(adapter: string): Promise<void> {
    const folder = absolutePath(adapter, 'The adapter');
    const handle = this.#handles.get(folder);
    this.#handles.delete(folder);
    if (handle) await this.#host.native.disposeModel(handle);
  }

  async dispose(): Promise<void> {
    await Promise.all(Array.from(this.#handles.keys(), (folder) => this.release(folder)));
  }

  async #load(folder: string): Promise<void> {
    const { native, queue, config, base, random } = this.#host;
    if (random) throw randomWithAdapter(folder);
    const { openLora } = await import('../checkpoint/lora.js');
    const { file, pairs } = await openLora(folder, config);
    // In turn with the forwards, which use the same threads.
    await queue.run(async () => void this.#handles.set(folder, await native.loadModel({ base, file, pairs })));
  }
}
