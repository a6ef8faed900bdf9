import path from 'node:path';
import { onAbort, throwIfAborted } from '../util/abort.js';
import { chooseActivations, type Activations } from '../engine/activations.js';
import { openCheckpoint } from '../checkpoint/open.js';
import type { Checkpoint, DType, ModelConfig, TensorInfo } from '../checkpoint/types.js';
import { CqilError } from '../errors.js';
import { chooseKvCache } from '../engine/kv_cache.js';
import { expectContextLength, readOptions, type CheckedOptions, type LoadOptions } from '../engine/load_options.js';
import { isUrl, type Location } from '../util/location.js';
import { cpuLimits, defaultThreads, describeCuda, describeMachine } from '../engine/machine.js';
import type { Model, ModelParts } from './model.js';
import { loadNative, unpacked } from '../engine/addon.js';
import {
  nativeShape,
  toNativePlan,
  type BackendLimits,
  type ModelHandle,
  type ModelSpec,
  type RankSpec,
} from '../engine/native.js';
import type { Placement } from '../engine/placement.js';
import type { Followers } from '../ranks/leader.js';
import { expectOption } from '../util/options.js';
import { pick } from '../util/pick.js';
import { resolvePlan, type Plan } from '../plan/plan.js';
import { publishedPlan, publishedPlanNote, type PublishedPlan } from './published_plan.js';

/**
 * Loads a Hugging Face folder, a `.safetensors` file in one, or a `.gguf` file, by its path or `file:` URL. Without a
 * path, loads the small model that ships. When the folder's config.json holds a plan and `options` has none, a warning
 * says so (`CQIL_PUBLISHED_PLAN`).
 *
 * Rejects with a CqilError: FILE_NOT_FOUND, FILE_CHANGED, INVALID_CHECKPOINT or UNSUPPORTED_MODEL for the files;
 * INVALID_ARGUMENT or INVALID_PLAN for the options; BACKEND_UNAVAILABLE, OUT_OF_MEMORY or NATIVE_ADDON for this
 * machine; ABORTED.
 */
export async function loadModel(file?: Location, options: LoadOptions = {}): Promise<Model> {
  expectOption(
    'The path of the model',
    file,
    file === undefined || isUrl(file) || (typeof file === 'string' && file !== ''),
    'a folder, a .gguf file, or undefined for the model that ships; options come second',
  );
  const read = readOptions(options);
  const checkpoint = await openCheckpoint(file ?? shippedModelPath());
  return load(checkpoint, read.checked, read.options);
}

/** Loads a model whose headers have been read. Rejects as `loadModel` does. */
export async function loadOpened(checkpoint: Checkpoint, options: LoadOptions): Promise<Model> {
  const read = readOptions(options);
  return load(checkpoint, read.checked, read.options);
}

/**
 * Random weights of a known shape, for measuring speed; the tokens mean nothing and there is no tokenizer. Takes
 * `loadModel`'s options too.
 */
export async function loadSyntheticModel(
  shape: string,
  options: LoadOptions & { dtype?: DType; seed?: number } = {},
): Promise<Model> {
  const { dtype = 'BF16', seed = 0, ...rest } = options;
  expectOption('seed', seed, Number.isSafeInteger(seed) && seed >= 0, 'an integer, 0 or more');
  const read = readOptions(rest);
  const { syntheticCheckpoint } = await import('../checkpoint/synthetic.js');
  return load(syntheticCheckpoint(shape, dtype), read.checked, read.options, seed);
}

/** The file of the model that ships: models/ lies beside lib/ and dist/. */
export function shippedModelPath(): string {
  return unpacked(path.join(__dirname, '../..', 'models', 'stories-24l', 'stories-24l-q8_0.gguf'));
}

async function load(
  checkpoint: Checkpoint,
  checked: CheckedOptions,
  options: LoadOptions,
  randomSeed?: number,
): Promise<Model> {
  const { config } = checkpoint;
  const { onProgress, onWarning = (warning, code) => process.emitWarning(warning, { code }), signal } = options;
  const random = randomSeed !== undefined;
  const plan = await planFor(config, checked, options, random);
  const published = publishedPlan(checkpoint);
  const notes = published && options.plan === undefined ? [noteOf(published)] : [];
  for (const note of notes) onWarning(note, 'CQIL_PUBLISHED_PLAN');
  const threads = options.threads ?? Math.max(1, Math.floor(defaultThreads(checkpoint) / checked.ranks.length));
  onProgress?.({ phase: 'open', loaded: 0, total: totalBytes(checkpoint) });
  throwIfAborted(signal);
  const followers = await startFollowers(checked);
  try {
    const join = followers && ((spec: Omit<ModelSpec, 'rank'>) => followers.join(spec, rankShare(checked, plan)));
    const created = await createWeights(checkpoint, { checked, threads, randomSeed, join });
    try {
      const { limits, ...parts } = await readEverything(checkpoint, created, followers, options);
      for (const warning of parts.warnings) onWarning(warning, 'CQIL_TOKENIZER');
      const { Model } = await import('./model.js');
      const model = new Model({
        ...parts,
        ...pick(created, ['handle', 'placement']),
        random,
        config,
        plan,
        limits,
        followers,
        warnings: [...notes, ...parts.warnings],
        contextLength: checked.contextLength,
        publishedPlan: published,
      });
      await model.prepare();
      return model;
    } catch (error) {
      await loadNative().disposeModel(created.handle);
      throw error;
    }
  } catch (error) {
    await followers?.end();
    throw error;
  }
}

/** Reads the weights, and what a model needs besides. */
async function readEverything(
  checkpoint: Checkpoint,
  { handle, placement, limits }: Created,
  followers: Followers | undefined,
  options: LoadOptions,
) {
  const { onProgress, signal } = options;
  const total = totalBytes(checkpoint);
  if (placement.backend === 'cuda') onProgress?.({ phase: 'read', loaded: total, total });
  // All have ended when this has: nobody disposes of a model that is being read.
  const [weights, rest, shares] = await Promise.allSettled([
    placement.backend === 'cpu' ? readWeights(handle, total, options) : undefined,
    readTheRest(checkpoint, placement, signal),
    followers?.loaded(signal),
  ]);
  if (weights.status === 'rejected') throw weights.reason;
  if (rest.status === 'rejected') throw rest.reason;
  if (shares.status === 'rejected') throw shares.reason;
  throwIfAborted(signal);
  return { ...rest.value, limits: limits ?? (await describeCuda()).limits! };
}

function totalBytes({ tensors }: Checkpoint): number {
  return tensors.reduce((sum, tensor) => sum + tensor.byteLength, 0);
}

/** The other ranks, where there are any. */
async function startFollowers({ ranks }: CheckedOptions): Promise<Followers | undefined> {
  if (ranks.length === 1) return undefined;
  const { Followers } = await import('../ranks/leader.js');
  return new Followers(ranks.length);
}

function rankShare({ ranks, split, rankTimeout }: CheckedOptions, plan: Plan): Omit<RankSpec, 'exchange'> {
  return { split, ratios: ranks, plan: toNativePlan(plan), patience: rankTimeout };
}

function noteOf(published: PublishedPlan): string {
  return publishedPlanNote(published, `{ plan: ${JSON.stringify(published.folder)} }`);
}

/** The plan, with what a model of this shape refuses refused before its weights are read rather than after. */
async function planFor(
  config: ModelConfig,
  checked: CheckedOptions,
  options: LoadOptions,
  random: boolean,
): Promise<Plan> {
  if (checked.contextLength !== undefined) expectContextLength(checked.contextLength, config.contextLength);
  const plan = resolvePlan(options.plan, config.nLayers);
  if (plan.adapter !== undefined) {
    if (checked.ranks.length > 1)
      throw new CqilError(
        'UNSUPPORTED_MODEL',
        `The plan has the adapter ${plan.adapter}, which this version merges in one process; expected ranks: 1, or a ` +
          'plan without an adapter.',
      );
    const { randomWithAdapter } = await import('../session/adapted_weights.js');
    if (random) throw randomWithAdapter(plan.adapter);
    await (await import('../checkpoint/lora.js')).openLora(plan.adapter, config);
  }
  return plan;
}

/** What weights are created with besides the options. */
interface Creation {
  checked: CheckedOptions;
  threads: number;
  randomSeed: number | undefined;
  /** Tells the other ranks, where there are any, and gives this one's part. */
  join: ((spec: Omit<ModelSpec, 'rank'>) => Promise<RankSpec>) | undefined;
}

interface Created {
  handle: ModelHandle;
  placement: Placement;
  /** The CPU's. */
  limits: BackendLimits | undefined;
}

/** Room for the weights, where they are to be computed. */
async function createWeights(
  { config, files, tensors }: Checkpoint,
  { checked, threads, randomSeed, join }: Creation,
): Promise<Created> {
  const limits = cpuLimits();
  const spec = {
    shape: nativeShape(config),
    device: checked.device,
    threads,
    aloneBytes: limits.aloneBytes,
    files,
    mmap: checked.mmap,
    tensors,
    randomSeed,
  };
  const { handle, backend, activations } = await loadOn(checked, spec, join);
  const kvCache = chooseKvCache(checked.kvCache, activations, tensors);
  const placement = {
    backend,
    threads,
    execution: checked.execution,
    kvCache,
    activations,
    ...pick(checked, ['ranks', 'split']),
  };
  return { handle, placement, limits: backend === 'cpu' ? limits : undefined };
}

/**
 * What a model needs besides its weights. It is imported and read beside them: Node.js takes longer to load these
 * modules than to run them.
 */
async function readTheRest(checkpoint: Checkpoint, placement: Placement, signal: AbortSignal | undefined) {
  const tokenizer = await readTokenizer(checkpoint, signal);
  const [{ Model }, { ExecutionChoices }, { timingIdentity }] = await Promise.all([
    import('./model.js'),
    import('../engine/execution_choices.js'),
    import('../engine/cache_identity.js'),
  ]);
  const choices = await ExecutionChoices.open(timingIdentity(describeMachine(), placement, checkpoint));
  return { ...tokenizer, choices, Model };
}

/** Reads all of the weights, on other threads; JavaScript goes on meanwhile. */
async function readWeights(handle: ModelHandle, total: number, { onProgress, signal }: LoadOptions): Promise<void> {
  const native = loadNative();
  const stop = () => native.cancel(handle);
  let told = 0;
  let failure: { error: unknown } | undefined;
  const tell = (loaded: number) => {
    // What the threads say may come out of turn, and after they have ended.
    if (loaded <= told || failure) return;
    told = loaded;
    try {
      onProgress?.({ phase: 'read', loaded, total });
    } catch (error) {
      failure = { error };
      stop();
    }
  };
  const forget = onAbort(signal, stop);
  try {
    await native.readModel(handle, tell);
    tell(total);
  } catch (error) {
    failure ??= { error };
  } finally {
    forget();
  }
  throwIfAborted(signal);
  if (failure) throw failure.error;
}

/** `auto` takes the GPU, unless there is none that can be used or it cannot hold or compute this model. */
async function loadOn(
  wanted: CheckedOptions,
  spec: Omit<ModelSpec, 'backend' | 'activations'> & { tensors: TensorInfo[] },
  join: Creation['join'],
): Promise<{ handle: ModelHandle; backend: 'cpu' | 'cuda'; activations: Activations }> {
  const native = loadNative();
  const on = async (backend: 'cpu' | 'cuda') => {
    const activations = chooseActivations(wanted.activations, backend, spec.tensors, describeMachine);
    const whole = { ...spec, backend, activations };
    const rank = await join?.(whole);
    return { handle: await native.loadModel({ ...whole, rank }), backend, activations };
  };
  if (wanted.backend !== 'auto') return on(wanted.backend);
  if ((await native.describeCuda()).available) {
    try {
      return await on('cuda');
    } catch (error) {
      if (!(error instanceof CqilError) || !['OUT_OF_MEMORY', 'UNSUPPORTED_MODEL'].includes(error.code)) throw error;
    }
  }
  return on('cpu');
}

/** A model without a usable tokenizer still computes on token ids, so the reason is kept for whoever asks for text. */
async function readTokenizer(
  checkpoint: Checkpoint,
  signal: AbortSignal | undefined,
): Promise<Pick<ModelParts, 'tokenizer' | 'eosTokenIds' | 'warnings'>> {
  const { loadTokenizer } = await import('../tokenizer/index.js');
  try {
    const tokenizer = await loadTokenizer(await checkpoint.readTokenizer(signal), checkpoint.config.vocabSize, signal);
    return { tokenizer, eosTokenIds: tokenizer.eosTokenIds, warnings: tokenizer.warnings };
  } catch (error) {
    if (!(error instanceof CqilError)) throw error;
    return { tokenizer: error, eosTokenIds: await checkpoint.readEosTokenIds(), warnings: [] };
  }
}
