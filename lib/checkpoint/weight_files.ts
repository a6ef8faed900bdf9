import path from 'node:path';
import { CqilError } from '../errors.js';
import { Fields, show } from './fields.js';
import { readJson } from './read_file.js';
import { readSafetensors } from './safetensors.js';
import type { StoredFile, StoredTensor } from './tensor_table.js';

const SINGLE_FILE = 'model.safetensors';
const INDEX_FILE = 'model.safetensors.index.json';
const INDEX = /\.safetensors\.index\.json$/i;
const SAFETENSORS = /\.safetensors$/i;
const PART = /^(.+)-(\d{5})-of-(\d{5})(\.safetensors)$/i;
const PYTORCH = /\.(bin|pth|pt)$/i;
const NUMPY = /\.npz$/i;
const GGUF = /\.gguf$/i;
const ADAPTER = /^(adapter_model|adapters)\.safetensors$/i;
const CONSOLIDATED = /^consolidated\b/i;

export interface HuggingFaceWeights {
  stored: StoredTensor[];
  files: StoredFile[];
}

/** The files that hold the weights of one model: the name of an index that lists them, or the names of all of them. */
type WeightFiles = { index: string } | { names: string[] };

/**
 * Reads the headers of the weights in a Hugging Face folder. `given` is a .safetensors file or an index in that folder;
 * with a file, the other parts of its model are read too. Without `given`, this reads model.safetensors; if there is
 * none, the files that the index lists; if there is no index either, the only model in the folder. `entries` are the
 * names in the folder.
 *
 * Throws FILE_NOT_FOUND, INVALID_CHECKPOINT or UNSUPPORTED_MODEL.
 */
export async function readHuggingFaceWeights(
  folder: string,
  entries: readonly string[],
  given: string | undefined,
): Promise<HuggingFaceWeights> {
  const chosen = given === undefined ? chooseWeights(folder, entries) : await weightsOf(folder, entries, given);
  const weights = 'index' in chosen ? await readIndexed(folder, chosen.index) : await readFiles(folder, chosen.names);
  refuseOtherLayouts(weights);
  return weights;
}

/** Whether a file's name is that of an index. */
export function isIndex(name: string): boolean {
  return INDEX.test(name);
}

/** Whether a file's name is that of an adapter's weights, PEFT's or MLX's. */
export function isAdapterFile(name: string): boolean {
  return ADAPTER.test(name);
}

/** The error for a folder without config.json: it says what the folder holds instead. */
export function noConfig(folder: string, entries: readonly string[]): CqilError {
  const gguf = entries.filter((name) => GGUF.test(name));
  if (gguf.length > 0)
    return new CqilError(
      'FILE_NOT_FOUND',
      `${folder} has no config.json but has ${listed(gguf)}; give the path of ` +
        `${gguf.length === 1 ? 'that file' : 'one of these files'}.`,
    );
  if (entries.includes('adapter_config.json')) {
    return new CqilError(
      'FILE_NOT_FOUND',
      `${folder} holds an adapter (adapter_config.json) and no config.json; a whole model is expected.`,
    );
  }
  const consolidated =
    entries.find((name) => CONSOLIDATED.test(name)) ?? entries.find((name) => name === 'params.json');
  if (consolidated !== undefined)
    return new CqilError('UNSUPPORTED_MODEL', `${folder} ${consolidatedProblem(consolidated)}`);
  return new CqilError(
    'FILE_NOT_FOUND',
    `${folder} has no config.json; a Hugging Face model folder or a .gguf file is expected.`,
  );
}

function chooseWeights(folder: string, entries: readonly string[]): WeightFiles {
  if (entries.includes(SINGLE_FILE)) return { names: [SINGLE_FILE] };
  const indices = entries.filter(isIndex);
  if (indices.includes(INDEX_FILE)) return { index: INDEX_FILE };
  if (indices.length > 1) throw several(folder, indices);
  if (indices.length === 1) return { index: indices[0]! };
  const all = entries.filter((name) => SAFETENSORS.test(name));
  const whole = all.filter((name) => !ADAPTER.test(name));
  // A consolidated file usually repeats the other weights in another layout, so it counts only when it is alone.
  const own = whole.filter((name) => !CONSOLIDATED.test(name));
  // Each model by its first part.
  const models = new Map((own.length > 0 ? own : whole).map(partNames).map((names) => [names[0]!, names]));
  if (models.size > 1) throw several(folder, [...models.keys()]);
  const [names] = models.values();
  if (names) return { names };
  throw noWeights(folder, entries);
}

/** The files of the model that `given` belongs to. */
async function weightsOf(folder: string, entries: readonly string[], given: string): Promise<WeightFiles> {
  if (isIndex(given)) return { index: given };
  for (const index of entries.filter(isIndex)) {
    const shards = await readIndex(folder, index);
    if ([...shards.values()].includes(given)) return { index };
  }
  return { names: partNames(given) };
}

/** The names of all parts of the model that a file, by its name, is one part of; otherwise the file's own name. */
function partNames(name: string): string[] {
  const [, start, , count, extension] = PART.exec(name) ?? [];
  if (count === undefined || Number(count) < 1) return [name];
  return Array.from(
    { length: Number(count) },
    (_, i) => `${start}-${String(i + 1).padStart(5, '0')}-of-${count}${extension}`,
  );
}

function several(folder: string, names: readonly string[]): CqilError {
  return new CqilError(
    'INVALID_CHECKPOINT',
    `${folder} has no ${SINGLE_FILE} but the weights of several models: ${listed(names)}; give the path of one of ` +
      'these files.',
  );
}

function noWeights(folder: string, entries: readonly string[]): CqilError {
  const having = (pattern: RegExp) => entries.find((name) => pattern.test(name));
  const gguf = having(GGUF);
  if (gguf !== undefined)
    return new CqilError(
      'FILE_NOT_FOUND',
      `${folder} has no .safetensors file but has ${show(gguf)}; give the path of that file.`,
    );
  const numpy = having(NUMPY);
  if (numpy !== undefined)
    return new CqilError(
      'UNSUPPORTED_MODEL',
      `${folder} has its weights as an MLX file (${show(numpy)}); convert them to safetensors with Hugging Face's ` +
        'names.',
    );
  const pytorch = having(PYTORCH);
  if (pytorch !== undefined)
    return new CqilError(
      'UNSUPPORTED_MODEL',
      `${folder} has its weights only as PyTorch files (${show(pytorch)}); convert them to safetensors.`,
    );
  return new CqilError(
    'FILE_NOT_FOUND',
    `${folder} has no weights; ${SINGLE_FILE} or ${INDEX_FILE} with its shards is expected.`,
  );
}

function listed(names: readonly string[]): string {
  const shown = names.slice(0, 4).map(show).join(', ');
  return names.length > 4 ? `${shown} and ${names.length - 4} more` : shown;
}

async function readFiles(folder: string, names: readonly string[]): Promise<HuggingFaceWeights> {
  const weights: HuggingFaceWeights = { stored: [], files: [] };
  for (const name of names) {
    const file = path.join(folder, name);
    const { tensors, fileSize } = await readSafetensors(file);
    for (const tensor of tensors) weights.stored.push({ ...tensor, file: weights.files.length });
    weights.files.push({ path: file, size: fileSize });
  }
  return weights;
}

/** Reads the shards an index lists; a tensor counts only in the shard that the index names for it. */
async function readIndexed(folder: string, index: string): Promise<HuggingFaceWeights> {
  const shardOf = await readIndex(folder, index);
  const weights: HuggingFaceWeights = { stored: [], files: [] };
  for (const shard of new Set(shardOf.values())) {
    const shardPath = path.join(folder, shard);
    const { tensors, fileSize } = await readSafetensors(shardPath);
    const here = new Map(tensors.map((tensor) => [tensor.name, tensor]));
    for (const [name, owner] of shardOf) {
      if (owner !== shard) continue;
      const tensor = here.get(name);
      if (!tensor)
        throw new CqilError(
          'INVALID_CHECKPOINT',
          `${shardPath} has no tensor ${show(name)}, which ${index} says is in it.`,
        );
      weights.stored.push({ ...tensor, file: weights.files.length });
    }
    weights.files.push({ path: shardPath, size: fileSize });
  }
  if (weights.files.length === 0)
    throw new CqilError('INVALID_CHECKPOINT', `${path.join(folder, index)} lists no tensors.`);
  return weights;
}

/** Reads an index: the name of the shard that holds each tensor. */
async function readIndex(folder: string, name: string): Promise<Map<string, string>> {
  const indexPath = path.join(folder, name);
  const index = Fields.ofJson(await readJson(indexPath), indexPath);
  const map = index.raw('weight_map');
  if (typeof map !== 'object' || Array.isArray(map)) throw index.invalid('has no object "weight_map"');
  const shardOf = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(map as object)) {
    // A shard lies beside its index; anything that could lead elsewhere is refused.
    if (typeof shard !== 'string' || !/^[^/\\\0]+\.safetensors$/.test(shard)) {
      throw new CqilError(
        'INVALID_CHECKPOINT',
        `${indexPath} puts tensor ${show(tensor)} in ${show(shard)}; the name of a .safetensors file in the same ` +
          'folder is expected.',
      );
    }
    shardOf.set(tensor, shard);
  }
  return shardOf;
}

/**
 * Refuses consolidated checkpoints: the tensors' names and the order of their rows are those of the maker's training
 * code.
 */
function refuseOtherLayouts({ stored, files }: HuggingFaceWeights): void {
  const sign = stored.find(
    ({ name }) =>
      name === 'tok_embeddings.weight' || /^layers\.\d+\.(attention\.w[qkvo]|feed_forward\.w[123])\.weight$/.test(name),
  );
  if (sign) throw new CqilError('UNSUPPORTED_MODEL', `${files[sign.file]!.path} ${consolidatedProblem(sign.name)}`);
}

function consolidatedProblem(sign: string): string {
  return (
    `holds a consolidated checkpoint (${show(sign)}), in Meta's or Mistral's own layout; convert it to ` +
    `Hugging Face's.`
  );
}
