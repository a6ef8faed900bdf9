import type { Pace } from '../util/pace.js';
import { invalidTokenizer, isObject, quote } from './invalid.js';
import { PIECES_AT_ONCE, type MergeRank } from './parts.js';

/** A token that is found in the text before anything else looks at it. */
export interface AddedToken {
  id: number;
  content: string;
  /** Found only where neither neighbour is a word character. */
  single_word: boolean;
  /** Swallows the whitespace before it. */
  lstrip: boolean;
  /** Swallows the whitespace after it. */
  rstrip: boolean;
  /** Found in the normalized text rather than the raw one. */
  normalized: boolean;
  /** Control token: skipped in decoded text, found in text only when special tokens are parsed. */
  special: boolean;
}

/** A normalizer, pre-tokenizer, post-processor or decoder: its type, and fields that depend on it. */
export interface Component {
  type: string;
  [field: string]: unknown;
}

/** The model of a byte-pair-encoding tokenizer. */
export interface BpeModel {
  type: 'BPE';
  /** Piece → id. */
  vocab: Map<string, number>;
  /** The place of two pieces in the list of merges, where there is one. */
  mergeRank: MergeRank;
  unk_token: string | null;
  /** One unknown token stands for a run of them. */
  fuse_unk: boolean;
  /** Characters outside the vocabulary become their UTF-8 bytes' `<0xNN>` tokens. */
  byte_fallback: boolean;
  /**
   * A word that is itself a piece is taken whole, whatever its merges would give: every one, or those that match. Only
   * files other than tokenizer.json give a pattern.
   */
  ignore_merges: boolean | RegExp;
}

/** The parts of Hugging Face's tokenizer.json that encode and decode. */
export interface TokenizerJson {
  added_tokens: AddedToken[];
  normalizer: Component | null;
  pre_tokenizer: Component | null;
  post_processor: Component | null;
  decoder: Component | null;
  model: BpeModel;
}

/** Bound on ids, so that a hostile file cannot make tables of any size it likes. */
export const MAX_VOCAB_SIZE = 1 << 22;

/** Bound on the characters of all added tokens, for the tables that find them; real files stay below a tenth of it. */
const MAX_ADDED_CHARACTERS = 1 << 20;
export const MAX_ADDED_TOKENS = 1 << 17;

/**
 * Bounds on the number of merges, and of normalizers, pre-tokenizers and the like; real files stay below an eighth and
 * a tenth of these.
 */
export const MAX_MERGES = 1 << 22;
const MAX_PARTS = 64;
const MAX_NESTING = 8;

/** Checks a parsed tokenizer.json. Throws INVALID_TOKENIZER with what was found and what was expected. */
export async function parseTokenizerJson(json: unknown, pace: Pace): Promise<TokenizerJson> {
  if (!isObject(json)) throw invalidTokenizer(`tokenizer.json holds ${quote(json)}; expected an object.`);
  const parsed: TokenizerJson = {
    added_tokens: parseAddedTokens(json.added_tokens),
    normalizer: parseComponent(json, 'normalizer'),
    pre_tokenizer: parseComponent(json, 'pre_tokenizer'),
    post_processor: parseComponent(json, 'post_processor'),
    decoder: parseComponent(json, 'decoder'),
    model: await parseModel(json.model, pace),
  };
  const { unk_token: unknown, vocab } = parsed.model;
  if (unknown !== null && !vocab.has(unknown)) {
    throw invalidTokenizer(`The unknown token ${quote(unknown)} is not in the vocabulary.`);
  }
  return parsed;
}

function parseComponent(json: Record<string, unknown>, name: string): Component | null {
  const component = json[name];
  if (component === undefined || component === null) return null;
  if (!isObject(component) || typeof component.type !== 'string') {
    throw invalidTokenizer(`The ${name} is ${quote(component)}; expected an object with a type, or null.`);
  }
  return component as Component;
}

/**
 * The parts of a component in order, those of nested sequences included. `field` holds a sequence's parts.
 * Throws INVALID_TOKENIZER where they are more than 64, or nested more than 8 deep.
 */
export function flattenSequence(component: Component, field: string): Component[] {
  const flat: Component[] = [];
  const add = (part: unknown, depth: number): void => {
    if (!isObject(part) || typeof part.type !== 'string') {
      throw invalidTokenizer(`One of the ${field} is ${quote(part)}; expected an object with a type.`);
    }
    if (part.type !== 'Sequence') {
      if (flat.push(part as Component) > MAX_PARTS)
        throw invalidTokenizer(`There are more than ${MAX_PARTS} ${field}; expected a few.`);
      return;
    }
    const parts = part[field];
    if (!Array.isArray(parts) || depth > MAX_NESTING) {
      throw invalidTokenizer(
        `A Sequence holds ${quote(parts)}; expected an array of ${field}, nested at most ${MAX_NESTING} deep.`,
      );
    }
    if (parts.length > MAX_PARTS)
      throw invalidTokenizer(`A Sequence holds ${parts.length} ${field}; at most ${MAX_PARTS} are expected.`);
    for (const one of parts) add(one, depth + 1);
  };
  add(component, 0);
  return flat;
}

function parseAddedTokens(tokens: unknown): AddedToken[] {
  if (tokens === undefined || tokens === null) return [];
  if (!Array.isArray(tokens)) throw invalidTokenizer(`added_tokens is ${quote(tokens)}; expected an array.`);
  if (tokens.length > MAX_ADDED_TOKENS)
    throw invalidTokenizer(`There are ${tokens.length} added tokens; at most ${MAX_ADDED_TOKENS} are expected.`);
  let characters = 0;
  return tokens.map((token: unknown) => {
    if (!isObject(token) || typeof token.content !== 'string' || !isTokenId(token.id)) {
      throw invalidTokenizer(`An added token is ${quote(token)}; expected content and an id below ${MAX_VOCAB_SIZE}.`);
    }
    characters += token.content.length;
    if (characters > MAX_ADDED_CHARACTERS) {
      throw invalidTokenizer(`The added tokens have more than ${MAX_ADDED_CHARACTERS} characters together.`);
    }
    const special = token.special === true;
    return {
      id: token.id,
      content: token.content,
      single_word: token.single_word === true,
      lstrip: token.lstrip === true,
      rstrip: token.rstrip === true,
      normalized: typeof token.normalized === 'boolean' ? token.normalized : !special,
      special,
    };
  });
}

async function parseModel(model: unknown, pace: Pace): Promise<BpeModel> {
  if (!isObject(model))
    throw invalidTokenizer(`The tokenizer's model is ${quote(model)}; expected an object of type "BPE".`);
  // Files of the format's first years leave the type out.
  const type = model.type ?? (Array.isArray(model.merges) ? 'BPE' : undefined);
  if (type !== 'BPE')
    throw invalidTokenizer(`The tokenizer's model is of type ${quote(model.type)}; only "BPE" is supported.`);
  for (const affix of ['continuing_subword_prefix', 'end_of_word_suffix']) {
    if (model[affix])
      throw invalidTokenizer(`The tokenizer's model has the ${affix} ${quote(model[affix])}; expected none.`);
  }
  if (model.dropout)
    throw invalidTokenizer(
      `The tokenizer's model has the dropout ${quote(model.dropout)}, which makes ids random; expected none.`,
    );
  if (model.unk_token !== undefined && model.unk_token !== null && typeof model.unk_token !== 'string') {
    throw invalidTokenizer(`The unknown token is ${quote(model.unk_token)}; expected a string or null.`);
  }
  const vocab = await parseVocab(model.vocab, pace);
  return {
    type,
    vocab,
    mergeRank: await parseMerges(model.merges, vocab, pace),
    unk_token: model.unk_token ?? null,
    fuse_unk: model.fuse_unk === true,
    byte_fallback: model.byte_fallback === true,
    ignore_merges: model.ignore_merges instanceof RegExp ? model.ignore_merges : model.ignore_merges === true,
  };
}

async function parseVocab(vocab: unknown, pace: Pace): Promise<Map<string, number>> {
  if (!isObject(vocab))
    throw invalidTokenizer(`The vocabulary is ${quote(vocab)}; expected an object of pieces and ids.`);
  const ids = new Map<string, number>();
  let count = 0;
  for (const [piece, id] of entriesOf(vocab)) {
    if (!isTokenId(id)) {
      throw invalidTokenizer(
        `The piece ${quote(piece)} has the id ${quote(id)}; expected an integer below ${MAX_VOCAB_SIZE}.`,
      );
    }
    if (!(vocab instanceof Map)) ids.set(piece, id);
    if (++count % PIECES_AT_ONCE === 0) await pace.pause();
  }
  return vocab instanceof Map ? (vocab as Map<string, number>) : ids;
}

/** The keys and values of an object or a Map. */
function* entriesOf(object: Record<string, unknown>): Generator<[string, unknown]> {
  if (object instanceof Map) yield* object;
  else for (const key in object) yield [key, object[key]];
}

/**
 * A merge is known by the id of the piece it makes and by where that is cut, so merges are kept in arrays, chained by
 * id, the last of them first: a map of pairs of strings would take most of a second to build for the 280,000 merges of
 * LLaMA 3.
 */
async function parseMerges(merges: unknown, vocab: ReadonlyMap<string, number>, pace: Pace): Promise<MergeRank> {
  if (typeof merges === 'function') return merges as MergeRank;
  if (!isList(merges)) throw invalidTokenizer(`The merges are ${quote(merges)}; expected an array.`);
  if (merges.length > MAX_MERGES)
    throw invalidTokenizer(`There are ${merges.length} merges; at most ${MAX_MERGES} are expected.`);
  let idLimit = 0;
  let seen = 0;
  for (const id of vocab.values()) {
    idLimit = Math.max(idLimit, id + 1);
    if (++seen % PIECES_AT_ONCE === 0) await pace.pause();
  }
  const lastOf = new Int32Array(idLimit).fill(-1);
  const previous = new Int32Array(merges.length);
  const cuts = new Int32Array(merges.length);
  let index = 0;
  for (const merge of merges) {
    const cut = cutOf(merge);
    if (cut < 0) throw invalidTokenizer(`Merge ${index} is ${quote(merge)}; expected two pieces.`);
    const [left, right] =
      typeof merge === 'string' ? [merge.slice(0, cut), merge.slice(cut + 1)] : (merge as [string, string]);
    const id = vocab.get(left + right);
    if (id === undefined)
      throw invalidTokenizer(`Merge ${index} gives ${quote(left + right)}, which is not in the vocabulary.`);
    cuts[index] = cut;
    previous[index] = lastOf[id]!;
    lastOf[id] = index++;
    if (index % PIECES_AT_ONCE === 0) await pace.pause();
  }
  return (joint, cut) => {
    const id = vocab.get(joint);
    if (id === undefined) return undefined;
    let index = lastOf[id]!;
    while (index >= 0 && cuts[index] !== cut) index = previous[index]!;
    return index < 0 ? undefined : index;
  };
}

function isList(value: unknown): value is Iterable<unknown> & { length: number } {
  return Object(value) === value && Symbol.iterator in (value as object) && 'length' in (value as object);
}

/** The length of the left of a merge's two pieces, which stand apart or around a space; -1 where there are not two. */
function cutOf(merge: unknown): number {
  if (typeof merge === 'string') {
    const space = merge.indexOf(' ');
    return merge.indexOf(' ', space + 1) < 0 ? space : -1;
  }
  const isPair =
    Array.isArray(merge) && merge.length === 2 && typeof merge[0] === 'string' && typeof merge[1] === 'string';
  return isPair ? (merge[0] as string).length : -1;
}

export function isTokenId(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < MAX_VOCAB_SIZE;
}
