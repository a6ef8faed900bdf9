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
import { nativeShape, type BackendLimits, type ModelHandle, type ModelSpec } from '../engine/native.js';
import type { Placement } from '../engine/placement.js';
import { expectOption } from '../util/options.js';
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
  const { config, tensors } = checkpoint;
  const { onProgress, onWarning = (warning, code) => process.emitWarning(warning, { code }), signal } = options;
  const random = randomSeed !== undefined;
  const plan = await planFor(config, checked, options, random);
  const published = publishedPlan(checkpoint);
  const notes = published && options.plan === undefined ? [noteOf(published)] : [];
  for (const note of notes) onWarning(note, 'CQIL_PUBLISHED_PLAN');
  const total = tensors.reduce((sum, tensor) => sum + tensor.byteLength, 0);
  const threads = options.threads ?? defaultThreads(checkpoint);
  onProgress?.({ phase: 'open', loaded: 0, total });
  throwIfAborted(signal);
  const { handle, placement, limits } = await createWeights(checkpoint, checked, threads, randomSeed);
  try {
    if (placement.backend === 'cuda') onProgress?.({ phase: 'read', loaded: total, total });
    // Both have ended when this has: nobody disposes of a model that is being read.
    const [weights, rest] = await Promise.allSettled([
      placement.backend === 'cpu' ? readWeights(handle, total, options) : undefined,
      readTheRest(checkpoint, placement, signal),
    ]);
    if (weights.status === 'rejected') throw weights.reason;
    if (rest.status === 'rejected') throw rest.reason;
    throwIfAborted(signal);
    const { Model, warnings, ...parts } = rest.value;
    for (const warning of warnings) onWarning(warning, 'CQIL_TOKENIZER');
    const model = new Model({
      ...parts,
      handle,
      random,
      config,
      plan,
      warnings: [...notes, ...warnings],
      placement,
      limits: limits ?? (await describeCuda()).limits!,
      contextLength: checked.contextLength,
      publishedPlan: published,
    });
    await model.prepare();
    return model;
  } catch (error) {
    await loadNative().disposeModel(handle);
    throw error;
  }
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
    const { randomWithAdapter } = await import('../session/adapted_weights.js');
    if (random) throw randomWithAdapter(plan.adapter);
    await (await import('../checkpoint/lora.js')).openLora(plan.adapter, config);
  }
  return plan;
}

/** Room for the weights, where they are to be computed. `limits` are the CPU's. */
async function createWeights(
  { config, files, tensors }: Checkpoint,
  checked: CheckedOptions,
  threads: number,
  randomSeed: number | undefined,
): Promise<{ handle: ModelHandle; placement: Placement; limits: BackendLimits | undefined }> {
  const limits = cpuLimits();
  const { handle, backend, activations } = await loadOn(checked, {
    shape: nativeShape(config),
    device: checked.device,
    threads,
    aloneBytes: limits.aloneBytes,
    files,
    mmap: checked.mmap,
    tensors,
    randomSeed,
  });
  const kvCache = chooseKvCache(checked.kvCache, activations, tensors);
  const placement = { backend, threads, execution: checked.execution, kvCache, activations };
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
): Promise<{ handle: ModelHandle; backend: 'cpu' | 'cuda'; activations: Activations }> {
  const native = loadNative();
  const on = async (backend: 'cpu' | 'cuda') => {
    const activations = chooseActivations(wanted.activations, backend, spec.tensors, describeMachine);
    return { handle: await native.loadModel({ ...spec, backend, activations }), backend, activations };
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
