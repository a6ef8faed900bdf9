import type { TokenizerSource } from '../checkpoint/types.js';
import { withNamedTemplates } from './chat_template.js';
import { isObject, objectOf } from './invalid.js';
import type { TokenizerParts } from './parts.js';

/**
 * The parts of a tokenizer in a Hugging Face folder. Tokens that only tokenizer_config.json (`added_tokens_decoder`) or added_tokens.json knows are
 * added to those of tokenizer.json, and so are pieces that tokenizer_config.json names as BOS, EOS and their like; names of special tokens are also
 * taken from special_tokens_map.json.
 */
export function huggingFaceParts(source: TokenizerSource & { kind: 'huggingface' }): TokenizerParts {
  const config = { ...objectOf(source.specialTokensMap), ...objectOf(source.config) };
  // Templates that lie beside the configuration as files come first: the default one takes its whole place.
  const named = Object.entries(source.furtherChatTemplates ?? {}).map(([name, template]) => ({ name, template }));
  const chatTemplates = withNamedTemplates(source.chatTemplate ?? config.chat_template, named);
  return { json: withAddedTokens(source, config), config: { ...config, chat_template: chatTemplates }, generationConfig: objectOf(source.generationConfig) };
}

function withAddedTokens(source: TokenizerSource & { kind: 'huggingface' }, config: Record<string, unknown>): unknown {
  const { json } = source;
  if (!isObject(json) || !(json.added_tokens === undefined || json.added_tokens === null || Array.isArray(json.added_tokens))) return json;
  const known: unknown[] = json.added_tokens ?? [];
  const contents = new Set(known.map((token) => (isObject(token) ? token.content : undefined)));
  const named = namedTokens(config);
  const further = [...decoderTokens(config.added_tokens_decoder), ...listedTokens(source.addedTokens), ...piecesNamed(named, json.model)].filter(({ content }) => {
    if (contents.has(content)) return false;
    contents.add(content);
    return true;
  });
  if (further.length === 0) return json;
  return { ...json, added_tokens: [...known, ...further.map((token) => ({ ...token, special: token.special === true || named.has(token.content) }))] };
}

interface FurtherToken extends Record<string, unknown> {
  id: number;
  content: unknown;
}

/** `added_tokens_decoder`: what a token is, by its id. */
function decoderTokens(decoder: unknown): FurtherToken[] {
  if (!isObject(decoder)) return [];
  return Object.entries(decoder).map(([id, token]) => ({ ...(isObject(token) ? token : { content: token }), id: Number(id) }) as FurtherToken);
}

/** added_tokens.json: ids by the tokens' contents. */
function listedTokens(list: unknown): FurtherToken[] {
  return isObject(list) ? Object.entries(list).map(([content, id]) => ({ id: id as number, content })) : [];
}

/** Pieces of the vocabulary that the configuration gives a part. */
function piecesNamed(named: ReadonlySet<unknown>, model: unknown): FurtherToken[] {
  const vocab = isObject(model) ? model.vocab : undefined;
  if (!isObject(vocab)) return [];
  return [...named].flatMap((content) => {
    const id = typeof content === 'string' ? idIn(vocab, content) : undefined;
    return id === undefined ? [] : [{ id: id as number, content }];
  });
}

/** What stands for a piece in a vocabulary that has been parsed: an object, or a Map where it is large. */
function idIn(vocab: Record<string, unknown>, piece: string): unknown {
  if (vocab instanceof Map) return vocab.get(piece);
  return Object.hasOwn(vocab, piece) ? vocab[piece] : undefined;
}

/** The contents of the tokens that a configuration gives a part, which makes them control tokens. */
function namedTokens(config: Record<string, unknown>): Set<unknown> {
  const named = new Set<unknown>();
  for (const [name, value] of Object.entries(config)) {
    if (name !== 'additional_special_tokens' && !name.endsWith('_token')) continue;
    for (const token of [value].flat() as unknown[]) named.add(isObject(token) ? token.content : token);
  }
  return named;
}
