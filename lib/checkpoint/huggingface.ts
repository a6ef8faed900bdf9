import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { Pace } from '../util/pace.js';
import { parseConfigJson } from './config.js';
import { Fields } from './fields.js';
import { exists, readBytes, readError, readJson, readText } from './read_file.js';
import { readLargeJson } from './sliced_json.js';
import { tensorTable } from './tensor_table.js';
import { idsWithin } from './token_ids.js';
import type { Checkpoint, TokenizerSource } from './types.js';
import { noConfig, readHuggingFaceWeights } from './weight_files.js';

/** Fields of config.json that describe a plan: two from the authors of CQIL, and the model's number of layers. */
const PLAN_FIELDS = ['cqil_layers', 'd', 'num_hidden_layers'];

/**
 * Opens a Hugging Face folder: config.json and the weights. `given` names a file of weights in the folder that is to be
 * used. The tokenizer is read when it is asked for.
 */
export async function openHuggingFace(folder: string, given?: string): Promise<Checkpoint> {
  const configPath = path.join(folder, 'config.json');
  const json = await readJson(configPath);
  const entries = await list(folder);
  if (json === undefined) throw noConfig(folder, entries);
  const { config, options, names } = parseConfigJson(json, configPath);
  const { stored, files } = await readHuggingFaceWeights(folder, entries, given);
  return {
    format: 'huggingface',
    path: given === undefined ? folder : path.join(folder, given),
    config,
    plan: planIn(json as Record<string, unknown>, configPath),
    files: files.map((file) => file.path),
    tensors: tensorTable(stored, files, names.huggingFace, config, options),
    readTokenizer: (signal) => readTokenizer(folder, json, signal),
    readEosTokenIds: async () => {
      // When generation_config.json cannot be read, that is already reported as the reason why there is no tokenizer.
      // The ids of config.json, which has been read, are used then.
      const { eos_token_id: ids } = await readGenerationConfig(folder, json).catch(() => endsOf(json));
      return idsWithin(config.vocabSize, ids);
    },
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
  return {
    file,
    fields: Object.fromEntries(PLAN_FIELDS.flatMap((key) => (json[key] === undefined ? [] : [[key, json[key]]]))),
  };
}

/**
 * Reads what the tokenizer of a folder is built from: tokenizer.json, else SentencePiece's tokenizer.model, else
 * vocab.json and merges.txt.
 */
async function readTokenizer(
  folder: string,
  configJson: unknown,
  signal: AbortSignal | undefined,
): Promise<TokenizerSource> {
  const pace = new Pace(signal);
  const at = (name: string): string => path.join(folder, name);
  const optional = (name: string): Promise<unknown> => readJson(at(name), 'INVALID_TOKENIZER');
  const surroundings = async () => ({
    config: await optional('tokenizer_config.json'),
    generationConfig: await readGenerationConfig(folder, configJson),
    chatTemplate: await readChatTemplate(folder),
    ...(await readFurtherTemplates(folder)),
    addedTokens: await optional('added_tokens.json'),
    specialTokensMap: await optional('special_tokens_map.json'),
  });
  if (await exists(at('tokenizer.json'))) {
    const json = await readLargeJson(at('tokenizer.json'), 'INVALID_TOKENIZER', pace);
    return { kind: 'huggingface', json, ...(await surroundings()) };
  }
  const model = await readBytes(at('tokenizer.model'), 'INVALID_TOKENIZER');
  if (model) return { kind: 'sentencepiece', model, ...(await surroundings()) };
  const merges = await readText(at('merges.txt'), 'INVALID_TOKENIZER');
  if (merges !== undefined && (await exists(at('vocab.json')))) {
    const vocab = await readLargeJson(at('vocab.json'), 'INVALID_TOKENIZER', pace);
    return { kind: 'byte_level', vocab, merges, ...(await surroundings()) };
  }
  return {
    kind: 'none',
    reason: `${folder} has no tokenizer.json, no tokenizer.model and no vocab.json with merges.txt.`,
  };
}

/**
 * The fields of generation_config.json. As in transformers, the ids of BOS and EOS are taken from config.json where it
 * has none.
 */
async function readGenerationConfig(folder: string, configJson: unknown): Promise<Record<string, unknown>> {
  const json = Object(await readJson(path.join(folder, 'generation_config.json'))) as Record<string, unknown>;
  return { ...json, ...endsOf(configJson), ...endsOf(json) };
}

/** The ids of BOS and EOS in a file, where it has them. */
function endsOf(json: unknown): Record<string, unknown> {
  const fields = json as Record<string, unknown>;
  return Object.fromEntries(
    ['bos_token_id', 'eos_token_id'].flatMap((name) =>
      (fields[name] ?? undefined) === undefined ? [] : [[name, fields[name]]],
    ),
  );
}

/** The template kept beside the tokenizer: chat_template.jinja, or the older chat_template.json. */
async function readChatTemplate(folder: string): Promise<string | undefined> {
  const text = await readText(path.join(folder, 'chat_template.jinja'));
  if (text !== undefined) return text;
  const jsonPath = path.join(folder, 'chat_template.json');
  const json = await readJson(jsonPath, 'INVALID_TOKENIZER');
  return json === undefined ? undefined : Fields.ofJson(json, jsonPath).string('chat_template');
}

/** Reads the chat templates for other uses, such as tool_use.jinja, which lie in a folder of their own. */
async function readFurtherTemplates(folder: string): Promise<{ furtherChatTemplates?: Record<string, string> }> {
  const home = path.join(folder, 'additional_chat_templates');
  let names: string[];
  try {
    names = (await readdir(home)).filter((name) => name.endsWith('.jinja')).toSorted();
  } catch (cause) {
    if (['ENOENT', 'ENOTDIR'].includes((cause as NodeJS.ErrnoException).code ?? '')) return {};
    throw readError(home, cause);
  }
  const templates = await Promise.all(
    names.map(async (name) => [path.basename(name, '.jinja'), (await readText(path.join(home, name))) ?? ''] as const),
  );
  return templates.length > 0 ? { furtherChatTemplates: Object.fromEntries(templates) } : {};
}
