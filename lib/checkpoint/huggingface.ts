import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { parseConfigJson } from './config.js';
import { Fields } from './fields.js';
import { HUGGINGFACE_NAMES } from './names.js';
import { readError, readJson, readText } from './read_file.js';
import { tensorTable } from './tensor_table.js';
import type { Checkpoint, TokenizerSource } from './types.js';
import { noConfig, readHuggingFaceWeights } from './weight_files.js';

/** Fields of config.json that hold a plan: the authors' own, and what they need to be one. */
const PLAN_FIELDS = ['cqil_layers', 'd', 'num_hidden_layers'];

/**
 * Opens a Hugging Face folder: config.json and its weights, those in `given` where a file of them was given. The tokenizer is read when
 * asked for.
 */
export async function openHuggingFace(folder: string, given?: string): Promise<Checkpoint> {
  const configPath = path.join(folder, 'config.json');
  const json = await readJson(configPath);
  const entries = await list(folder);
  if (json === undefined) throw noConfig(folder, entries);
  const { config, options } = parseConfigJson(json, configPath);
  const { stored, files } = await readHuggingFaceWeights(folder, entries, given);
  return {
    format: 'huggingface',
    path: given === undefined ? folder : path.join(folder, given),
    config,
    plan: planIn(json as Record<string, unknown>, configPath),
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

function planIn(json: Record<string, unknown>, file: string): Checkpoint['plan'] {
  if (json.cqil_layers === undefined || json.cqil_layers === null) return undefined;
  return { file, fields: Object.fromEntries(PLAN_FIELDS.flatMap((key) => (json[key] === undefined ? [] : [[key, json[key]]]))) };
}

async function readTokenizer(folder: string): Promise<TokenizerSource> {
  const json = await readJson(path.join(folder, 'tokenizer.json'), 'INVALID_TOKENIZER', Infinity);
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
