import path from 'node:path';
import { stat } from 'node:fs/promises';
import { CqilError } from '../errors.js';
import { absolutePath, pathOf, type Location } from '../util/location.js';
import { show } from './fields.js';
import { expectedTensors, rowsAndCols, tensorBytes } from './layout.js';
import { readLoraConfig, type LoraConfig } from './lora_config.js';
import { HUGGINGFACE_NAMES, nameReader, tensorName } from './names.js';
import { exists, readJson } from './read_file.js';
import { readSafetensors } from './safetensors.js';
import type { StoredTensor } from './tensor_table.js';
import { PROJECTIONS, type DType, type ModelConfig, type Projection, type TensorInfo } from './types.js';

/** A matrix in an adapter's file. */
export interface LoraMatrix {
  dtype: 'F32' | 'F16' | 'BF16';
  /** Bytes from the start of the file. */
  offset: number;
}

/** The update of one projection: W + scale · B · A. */
export interface LoraPair {
  role: Projection;
  layer: number;
  rank: number;
  /** α / r; rank-stabilized, α / √r. */
  scale: number;
  /** [rank, columns of W] */
  a: LoraMatrix;
  /** [rows of W, rank], rows in the order of Hugging Face checkpoints. */
  b: LoraMatrix;
}

/** A PEFT LoRA adapter on disk, checked against a model's shape. No weight is read. */
export interface LoraAdapter {
  folder: string;
  file: string;
  rank: number;
  alpha: number;
  /** In the order of the forward pass. */
  pairs: LoraPair[];
}

export const LORA_CONFIG_FILE = 'adapter_config.json';
export const LORA_WEIGHTS_FILE = 'adapter_model.safetensors';
/** Before the module's own name in the names of an adapter's tensors. */
export const LORA_PREFIX = 'base_model.model.';
const LORA_TYPES: readonly string[] = ['F32', 'F16', 'BF16'] satisfies readonly DType[];

/**
 * Opens a PEFT LoRA adapter: a folder with adapter_config.json and adapter_model.safetensors. Every tensor belongs to
 * one of the seven projections of a layer, in pairs A [r, columns] and B [rows, r] that fit the model, and every
 * projection the configuration selects has its pair.
 *
 * @throws CqilError FILE_NOT_FOUND; INVALID_CHECKPOINT for files that are damaged, contradict each other or belong to
 * another model; UNSUPPORTED_MODEL for kinds of adapters that would need more than W + scale · B · A.
 */
export async function openLora(location: Location, config: ModelConfig): Promise<LoraAdapter> {
  const folder = absolutePath(pathOf(location, 'The adapter'), 'The adapter');
  await refuseFile(folder);
  const configPath = path.join(folder, LORA_CONFIG_FILE);
  const json = await readJson(configPath);
  if (json === undefined)
    throw new CqilError(
      'FILE_NOT_FOUND',
      `${folder} has no ${LORA_CONFIG_FILE}; the folder of a PEFT LoRA adapter is expected.`,
    );
  const lora = readLoraConfig(json, configPath, config.nLayers);
  const file = path.join(folder, LORA_WEIGHTS_FILE);
  await expectSafetensors(folder);
  const { tensors } = await readSafetensors(file);
  return { folder, file, rank: lora.rank, alpha: lora.alpha, pairs: pairUp(tensors, file, lora, config) };
}

/** What tells whether the files of an adapter have been written to: their sizes and times. Undefined where one is gone. */
export async function adapterState(folder: string): Promise<string | undefined> {
  try {
    const files = [LORA_CONFIG_FILE, LORA_WEIGHTS_FILE].map((name) => stat(path.join(folder, name), { bigint: true }));
    return (await Promise.all(files)).map(({ size, mtimeNs }) => `${size} ${mtimeNs}`).join(' ');
  } catch {
    return undefined;
  }
}

async function refuseFile(location: string): Promise<void> {
  const stats = await stat(location).catch(() => undefined);
  if (!stats?.isFile()) return;
  if (/\.gguf$/i.test(location))
    throw new CqilError(
      'UNSUPPORTED_MODEL',
      `${location} is an adapter as a GGUF file; the folder of a PEFT LoRA adapter is supported.`,
    );
  throw new CqilError('FILE_NOT_FOUND', `${location} is a file; the folder of a PEFT LoRA adapter is expected.`);
}

async function expectSafetensors(folder: string): Promise<void> {
  if (await exists(path.join(folder, LORA_WEIGHTS_FILE))) return;
  if (await exists(path.join(folder, 'adapter_model.bin')))
    throw new CqilError(
      'UNSUPPORTED_MODEL',
      `${folder} has its weights only as a PyTorch file (adapter_model.bin); convert them to safetensors.`,
    );
  throw new CqilError('FILE_NOT_FOUND', `${folder} has no ${LORA_WEIGHTS_FILE}.`);
}

interface Halves {
  a?: StoredTensor;
  b?: StoredTensor;
}

function pairUp(tensors: readonly StoredTensor[], file: string, lora: LoraConfig, config: ModelConfig): LoraPair[] {
  const halves = new Map<string, Halves>();
  for (const tensor of tensors) {
    const { module, half } = readName(tensor.name, file, config.nLayers);
    const pair = halves.get(module) ?? {};
    if (pair[half])
      throw invalid(
        file,
        `has the tensor ${show(tensor.name)} as well as ${show(pair[half].name)}, which mean the same`,
      );
    halves.set(module, { ...pair, [half]: tensor });
  }
  const pairs: LoraPair[] = [];
  for (const { role, layer, shape } of expectedTensors(config, { qkvBias: false, outputBias: false, qkNorm: false })) {
    if (!isProjection(role)) continue;
    const module = moduleName(role, layer);
    const pair = halves.get(module);
    const selected = lora.selects(module, layer);
    if (!pair) {
      if (selected === true) throw invalid(file, `has no tensors for ${module}, which its configuration selects`);
      continue;
    }
    if (selected === false) throw invalid(file, `has tensors for ${module}, which its configuration does not select`);
    for (const half of ['a', 'b'] as const) {
      if (!pair[half])
        throw invalid(
          file,
          `has no tensor "${LORA_PREFIX}${module}.lora_${half.toUpperCase()}.weight", the other half of ` +
            `${show(pair[half === 'a' ? 'b' : 'a']!.name)}`,
        );
    }
    const [rows, cols] = rowsAndCols(shape);
    const { rank, scale } = lora;
    pairs.push({
      role,
      layer,
      rank,
      scale,
      a: readMatrix(pair.a!, [rank, cols], file),
      b: readMatrix(pair.b!, [rows, rank], file),
    });
  }
  if (pairs.length === 0) throw invalid(file, 'holds no tensors; LoRA weights of at least one projection are expected');
  return pairs;
}

/**
 * The module a tensor updates, in the one spelling used here, and which half it is. Throws for a tensor of anything
 * else.
 */
function readName(name: string, file: string, nLayers: number): { module: string; half: 'a' | 'b' } {
  const match = /^(.+)\.lora_([AB])\.weight$/.exec(name.startsWith(LORA_PREFIX) ? name.slice(LORA_PREFIX.length) : '');
  const named = match ? readHuggingFaceName(`${match[1]}.weight`) : undefined;
  if (named?.kind !== 'model' || !isProjection(named.role)) {
    throw new CqilError(
      'UNSUPPORTED_MODEL',
      `${file} has the tensor ${show(name)}, which is no LoRA weight of a layer's q, k, v, o, gate, up or down ` +
        'projection.',
    );
  }
  if (named.layer >= nLayers)
    throw invalid(
      file,
      `has the tensor ${show(name)}, but the model has ${nLayers} layers: the adapter belongs to another model`,
    );
  return { module: moduleName(named.role, named.layer), half: match![2] === 'A' ? 'a' : 'b' };
}

const readHuggingFaceName = nameReader(HUGGINGFACE_NAMES);

/** A projection's name in a Hugging Face model: `model.layers.0.self_attn.q_proj`. */
export function moduleName(role: Projection, layer: number): string {
  return tensorName(HUGGINGFACE_NAMES, role, layer).replace(/\.weight$/, '');
}

function readMatrix(tensor: StoredTensor, shape: readonly [number, number], file: string): LoraMatrix {
  if (tensor.shape.length !== 2 || tensor.shape[0] !== shape[0] || tensor.shape[1] !== shape[1]) {
    throw invalid(
      file,
      `has tensor ${show(tensor.name)} of shape [${tensor.shape.join(', ')}]; [${shape.join(', ')}] is expected: ` +
        'its rank or its model is another',
    );
  }
  if (!LORA_TYPES.includes(tensor.type)) {
    throw new CqilError(
      'UNSUPPORTED_MODEL',
      `${file} has tensor ${show(tensor.name)} of type ${show(tensor.type)}; supported are ${LORA_TYPES.join(', ')}.`,
    );
  }
  return { dtype: tensor.type as LoraMatrix['dtype'], offset: tensor.offset };
}

function isProjection(role: string): role is Projection {
  return PROJECTIONS.some((known) => known === role);
}

function invalid(file: string, problem: string): CqilError {
  return new CqilError('INVALID_CHECKPOINT', `${file} ${problem}.`);
}

/**
 * Bytes of a model's matrices that get their own memory when an adapter is merged in: their own format's, Q8_0's for
 * smaller ones.
 */
export function mergedBytes(adapter: LoraAdapter, tensors: readonly TensorInfo[]): number {
  const touched = new Set(adapter.pairs.map(({ role, layer }) => `${role} ${layer}`));
  return tensors.reduce((sum, { role, layer, dtype, rows, cols }) => {
    if (!touched.has(`${role} ${layer}`)) return sum;
    return sum + tensorBytes(dtype === 'F32' || dtype === 'F16' || dtype === 'BF16' ? dtype : 'Q8_0', rows, cols);
  }, 0);
}
