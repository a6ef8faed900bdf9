import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { CqilError } from '../errors.js';
import { parseConfigJson } from './config.js';
import { Fields, show } from './fields.js';
import { HUGGINGFACE_NAMES } from './names.js';
import { readError, readJson, readText } from './read_file.js';
import { readSafetensors } from './safetensors.js';
import { tensorTable, type StoredFile, type StoredTensor } from './tensor_table.js';
import type { Checkpoint, TokenizerSource } from './types.js';

const SINGLE_FILE = 'model.safetensors';
const INDEX_FILE = 'model.safetensors.index.json';
const PYTORCH_FILE = /\.(bin|pth|pt)$/;

/** Opens a Hugging Face folder: config.json, model.safetensors (or its shards), whose tokenizer is read when asked for. */
export async function openHuggingFace(folder: string): Promise<Checkpoint> {
  const configPath = path.join(folder, 'config.json');
  const json = await readJson(configPath);
  const entries = await list(folder);
  if (json === undefined) throw noConfig(folder, entries);
  const { config, options } = parseConfigJson(json, configPath);
  const { stored, files } = await readWeights(folder, entries);
  return {
    format: 'huggingface',
    path: folder,
    config,
    files: files.map((file) => file.path),
    tensors: tensorTable(stored, files, HUGGINGFACE_NAMES, config, options),
    readTokenizer: () => readTokenizer(folder),
  };
}

/** Names in a folder, sorted so that messages do not depend on the file system. */
async function list(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).toSorted();
  } catch (cause) {
    throw readError(folder, cause);
  }
}

function noConfig(folder: string, entries: readonly string[]): CqilError {
  const gguf = entries.find((name) => name.endsWith('.gguf'));
  if (gguf) return new CqilError('FILE_NOT_FOUND', `${folder} has no config.json but has ${show(gguf)}; give the path of that file.`);
  if (entries.includes('adapter_config.json')) {
    return new CqilError('FILE_NOT_FOUND', `${folder} holds an adapter (adapter_config.json) and no config.json; a whole model is expected.`);
  }
  return new CqilError('FILE_NOT_FOUND', `${folder} has no config.json; a Hugging Face model folder or a .gguf file is expected.`);
}

interface Weights {
  stored: StoredTensor[];
  files: StoredFile[];
}

async function readWeights(folder: string, entries: readonly string[]): Promise<Weights> {
  if (entries.includes(SINGLE_FILE)) {
    const file = path.join(folder, SINGLE_FILE);
    const { tensors, fileSize } = await readSafetensors(file);
    return { stored: tensors, files: [{ path: file, size: fileSize }] };
  }
  if (entries.includes(INDEX_FILE)) return readShards(folder);
  const pytorch = entries.find((name) => PYTORCH_FILE.test(name));
  if (pytorch) throw new CqilError('UNSUPPORTED_MODEL', `${folder} has its weights only as PyTorch files (${show(pytorch)}); convert them to safetensors.`);
  throw new CqilError('FILE_NOT_FOUND', `${folder} has no weights; ${SINGLE_FILE} or ${INDEX_FILE} with its shards is expected.`);
}

/** Reads the shards an index lists; a tensor counts only in the shard that the index names for it. */
async function readShards(folder: string): Promise<Weights> {
  const indexPath = path.join(folder, INDEX_FILE);
  const shardOf = weightMap(Fields.ofJson(await readJson(indexPath), indexPath), indexPath);
  const weights: Weights = { stored: [], files: [] };
  for (const shard of new Set(shardOf.values())) {
    const shardPath = path.join(folder, shard);
    const { tensors, fileSize } = await readSafetensors(shardPath);
    const here = new Map(tensors.map((tensor) => [tensor.name, tensor]));
    for (const [name, owner] of shardOf) {
      if (owner !== shard) continue;
      const tensor = here.get(name);
      if (!tensor) throw new CqilError('INVALID_CHECKPOINT', `${shardPath} has no tensor ${show(name)}, which ${INDEX_FILE} says is in it.`);
      weights.stored.push({ ...tensor, file: weights.files.length });
    }
    weights.files.push({ path: shardPath, size: fileSize });
  }
  if (weights.files.length === 0) throw new CqilError('INVALID_CHECKPOINT', `${indexPath} lists no tensors.`);
  return weights;
}

function weightMap(index: Fields, indexPath: string): Map<string, string> {
  const map = index.raw('weight_map');
  if (typeof map !== 'object' || Array.isArray(map)) throw index.invalid('has no object "weight_map"');
  const shardOf = new Map<string, string>();
  for (const [name, shard] of Object.entries(map as object)) {
    // A shard lies beside its index; anything that could lead elsewhere is refused.
    if (typeof shard !== 'string' || !/^[^/\\\0]+\.safetensors$/.test(shard)) {
      throw new CqilError('INVALID_CHECKPOINT', `${indexPath} puts tensor ${show(name)} in ${show(shard)}; the name of a .safetensors file in the same folder is expected.`);
    }
    shardOf.set(name, shard);
  }
  return shardOf;
}

async function readTokenizer(folder: string): Promise<TokenizerSource> {
  const json = await readJson(path.join(folder, 'tokenizer.json'), 'INVALID_TOKENIZER');
  if (json === undefined) return { kind: 'none', reason: `${folder} has no tokenizer.json.` };
  return {
    kind: 'huggingface',
    json,
    config: await readJson(path.join(folder, 'tokenizer_config.json'), 'INVALID_TOKENIZER'),
    generationConfig: await readJson(path.join(folder, 'generation_config.json')),
    chatTemplate: await readChatTemplate(folder),
  };
}

/** The template kept beside the tokenizer: chat_template.jinja, or the older chat_template.json. */
async function readChatTemplate(folder: string): Promise<string | undefined> {
  const text = await readText(path.join(folder, 'chat_template.jinja'));
  if (text !== undefined) return text;
  const jsonPath = path.join(folder, 'chat_template.json');
  const json = await readJson(jsonPath, 'INVALID_TOKENIZER');
  return json === undefined ? undefined : Fields.ofJson(json, jsonPath).string('chat_template');
}
