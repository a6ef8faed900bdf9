import type { CqilError } from '../errors.js';
import { invalidTokenizer, isObject, quote } from './invalid.js';
import { flattenSequence, isTokenId, type Component } from './tokenizer_json.js';

/** Tokens that stand at a text's ends, and those that end generation. */
export interface SpecialTokens {
  bosTokenId: number | undefined;
  eosTokenIds: number[];
  /** Put before every text, by the model's own rule. */
  prefix: number[];
  /** Put after every text. */
  suffix: number[];
  /** Contents of `bos_token`, `eos_token` and their like, by these names, for chat templates. */
  names: Record<string, string | string[]>;
  /** A sentence for each token that the files name and the vocabulary lacks. */
  warnings: string[];
}

// Every instruction-tuned family has its own end of turn; checkpoints often name only one of theirs as EOS.
const END_TOKENS = [
  '</s>',
  '<|endoftext|>',
  '<|end_of_text|>',
  '<|eot_id|>',
  '<|eom_id|>',
  '<|im_end|>',
  '<|end|>',
  '<|end_of_turn|>',
  '<end_of_turn>',
  '<｜end▁of▁sentence｜>',
];

// The classes of transformers 4 that put BOS before a text unless tokenizer_config.json says otherwise, and need no
// post-processor for it.
const BEGINNING_CLASSES = /^(?:Llama|CodeLlama|Gemma|Cohere)Tokenizer(?:Fast)?$/;

/** Bound on the tokens around a text: real templates have one or two. */
const MAX_SURROUNDING = 1024;

const NAMES = ['bos_token', 'eos_token', 'unk_token', 'pad_token'];

/**
 * Resolves special tokens. BOS and EOS are those of `config` (tokenizer_config.json), else of `generationConfig`.
 * `eosTokenIds` also holds every id in `generationConfig.eos_token_id` and every added token with a well-known end's
 * name. `size`: one more than the highest id of the model. What stands around a text is what the post-processor puts
 * there; `add_bos_token` and `add_eos_token`, where given, overrule it. Without either, BOS stands before a text if the
 * tokenizer's class wants it.
 */
export function resolveSpecialTokens(
  postProcessor: Component | null,
  config: Record<string, unknown>,
  generationConfig: Record<string, unknown>,
  vocabulary: { idOf(token: string): number | undefined; isAdded(id: number): boolean; size: number },
): SpecialTokens {
  const { idOf, isAdded, size } = vocabulary;
  const inVocabulary = (id: unknown): id is number => isTokenId(id) && id < size;

  const names = namesOf(config);
  const { prefix, suffix } = surroundings(postProcessor, idOf);
  const named = (name: string): number | undefined => {
    const token = contentOf(config[name]);
    return token === undefined ? undefined : idOf(token);
  };
  const generationBos = generationConfig.bos_token_id;
  const bosTokenId = named('bos_token') ?? (inVocabulary(generationBos) ? generationBos : prefix[0]);

  const eosTokenIds = new Set<number>();
  const eosTokenId = named('eos_token');
  if (eosTokenId !== undefined) eosTokenIds.add(eosTokenId);
  const ids = [generationConfig.eos_token_id].flat();
  for (const id of ids) if (inVocabulary(id)) eosTokenIds.add(id);
  const mainEos = [...eosTokenIds][0];
  for (const token of END_TOKENS) {
    const id = idOf(token);
    if (id !== undefined && isAdded(id)) eosTokenIds.add(id);
  }

  const context: Context = { config, ids, named, bosTokenId, eosTokenIds, size };
  return {
    warnings: warningsOf(context, inVocabulary),
    bosTokenId,
    eosTokenIds: [...eosTokenIds],
    prefix: overrule(
      prefix,
      config.add_bos_token ?? beginsByClass(postProcessor, config.tokenizer_class),
      bosTokenId,
      'start',
    ),
    suffix: overrule(suffix, config.add_eos_token, mainEos, 'end'),
    names,
  };
}

/** What special tokens were found in. */
interface Context {
  config: Record<string, unknown>;
  /** Of generation_config.json, as they stand there. */
  ids: unknown[];
  /** The id of the token that a field of `config` names. */
  named(field: string): number | undefined;
  bosTokenId: number | undefined;
  eosTokenIds: ReadonlySet<number>;
  size: number;
}

/** What a file says of special tokens that cannot be followed. */
function warningsOf(
  { config, ids, named, bosTokenId, eosTokenIds, size }: Context,
  inVocabulary: (id: unknown) => boolean,
): string[] {
  const warnings: string[] = [];
  const ends =
    eosTokenIds.size > 0 ? `what ends a generation is ${[...eosTokenIds].join(', ')}` : 'no token ends a generation';
  const isMissing = (name: string): boolean => contentOf(config[name]) !== undefined && named(name) === undefined;
  const missing = (name: string): string =>
    `${name} is ${quote(contentOf(config[name]))}, which the vocabulary does not have`;
  if (isMissing('eos_token')) warnings.push(`The tokenizer's ${missing('eos_token')}; ${ends}.`);
  // Some files write a negative id for none.
  const outside = ids.filter((id) =>
    typeof id === 'number' ? id >= 0 && !inVocabulary(id) : id !== undefined && id !== null,
  );
  if (outside.length > 0)
    warnings.push(
      `The model's eos_token_id holds ${outside.map(quote).join(', ')}, expected ids below ${size}; ${ends}.`,
    );
  if (isMissing('bos_token') && bosTokenId === undefined && config.add_bos_token === true)
    warnings.push(
      `The tokenizer's ${missing('bos_token')}, though add_bos_token is true; nothing is put before a text.`,
    );
  return warnings;
}

/** True if only the tokenizer's class says that BOS goes before a text. */
function beginsByClass(postProcessor: Component | null, tokenizerClass: unknown): true | undefined {
  const parts = postProcessor === null ? [] : flattenSequence(postProcessor, 'processors');
  const isSilent = parts.every((part) => part.type === 'ByteLevel');
  return isSilent && typeof tokenizerClass === 'string' && BEGINNING_CLASSES.test(tokenizerClass) ? true : undefined;
}

function namesOf(config: Record<string, unknown>): Record<string, string | string[]> {
  const names: Record<string, string | string[]> = {};
  for (const name of NAMES) {
    const token = contentOf(config[name]);
    if (token !== undefined) names[name] = token;
  }
  const { additional_special_tokens: additional } = config;
  if (Array.isArray(additional))
    names.additional_special_tokens = additional.flatMap((token) => contentOf(token) ?? []);
  return names;
}

/** A special token in tokenizer_config.json is its content, or an object that holds it. */
function contentOf(token: unknown): string | undefined {
  const content = isObject(token) ? token.content : token;
  return typeof content === 'string' ? content : undefined;
}

function overrule(ids: number[], add: unknown, id: number | undefined, end: 'start' | 'end'): number[] {
  if (typeof add !== 'boolean' || id === undefined) return ids;
  const others = ids.filter((other) => other !== id);
  if (!add) return others;
  return end === 'start' ? [id, ...others] : [...others, id];
}

/** The ids a post-processor puts before and after a single text. */
function surroundings(
  config: Component | null,
  idOf: (token: string) => number | undefined,
): { prefix: number[]; suffix: number[] } {
  const prefix: number[] = [];
  const suffix: number[] = [];
  for (const part of config === null ? [] : flattenSequence(config, 'processors')) {
    if (part.type === 'ByteLevel') continue;
    if (part.type === 'BertProcessing' || part.type === 'RobertaProcessing') {
      prefix.push(pairId(part, 'cls'));
      suffix.push(pairId(part, 'sep'));
      continue;
    }
    if (part.type !== 'TemplateProcessing' || !Array.isArray(part.single)) {
      throw invalidTokenizer(
        `The post-processor is ${quote(part)}; expected a TemplateProcessing with a single template, ` +
          'BertProcessing, RobertaProcessing or ByteLevel.',
      );
    }
    if (part.single.length > MAX_SURROUNDING) throw tooManySurrounding(part.single.length);
    const texts = part.single.filter((item: unknown) => isObject(item) && isObject(item.Sequence)).length;
    if (texts !== 1) throw invalidTokenizer(`The post-processor's single template holds ${texts} texts; expected one.`);
    let afterText = false;
    for (const item of part.single as unknown[]) {
      if (isObject(item) && isObject(item.Sequence)) afterText = true;
      else (afterText ? suffix : prefix).push(...templateIds(item, part.special_tokens, idOf));
    }
  }
  return { prefix, suffix };
}

/** The id of a token that is given as its content and its id. */
function pairId(part: Component, name: string): number {
  const pair = part[name];
  const id: unknown = Array.isArray(pair) && pair.length === 2 ? pair[1] : undefined;
  if (!isTokenId(id))
    throw invalidTokenizer(`The post-processor's ${name} is ${quote(pair)}; expected a token and its id.`);
  return id;
}

function templateIds(item: unknown, specialTokens: unknown, idOf: (token: string) => number | undefined): number[] {
  const token = isObject(item) && isObject(item.SpecialToken) ? item.SpecialToken.id : undefined;
  if (typeof token !== 'string')
    throw invalidTokenizer(
      `The post-processor's template holds ${quote(item)}; expected a SpecialToken or a Sequence.`,
    );
  const entry = isObject(specialTokens) ? specialTokens[token] : undefined;
  const ids: unknown = isObject(entry) ? entry.ids : [idOf(token)];
  if (Array.isArray(ids) && ids.length > MAX_SURROUNDING) throw tooManySurrounding(ids.length);
  if (!Array.isArray(ids) || !ids.every(isTokenId)) {
    throw invalidTokenizer(
      `The post-processor's special token ${quote(token)} has the ids ${quote(ids)}; expected ids of the vocabulary.`,
    );
  }
  return ids;
}

function tooManySurrounding(count: number): CqilError {
  return invalidTokenizer(
    `The post-processor puts ${count} tokens around a text; at most ${MAX_SURROUNDING} are expected.`,
  );
}
