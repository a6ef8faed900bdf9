import type { TokenizerSource } from '../checkpoint/types.js';
import { isObject, objectOf } from './invalid.js';
import type { TokenizerParts } from './parts.js';
import { withNamedTemplates } from './template_names.js';

/**
 * The parts of a tokenizer in a Hugging Face folder. Tokens that only tokenizer_config.json (`added_tokens_decoder`) or
 * added_tokens.json knows are added to those of tokenizer.json, and so are pieces that tokenizer_config.json names as
 * BOS, EOS and their like; names of special tokens are also taken from special_tokens_map.json.
 */
export function huggingFaceParts(source: TokenizerSource & { kind: 'huggingface' }): TokenizerParts {
  const config = { ...objectOf(source.specialTokensMap), ...objectOf(source.config) };
  // A template in a file of its own replaces the configuration's; further files add named ones.
  const named = Object.entries(source.furtherChatTemplates ?? {}).map(([name, template]) => ({ name, template }));
  const chatTemplates = withNamedTemplates(source.chatTemplate ?? config.chat_template, named);
  return {
    json: withAddedTokens(source, config),
    config: { ...config, chat_template: chatTemplates },
    generationConfig: objectOf(source.generationConfig),
  };
}

function withAddedTokens(source: TokenizerSource & { kind: 'huggingface' }, config: Record<string, unknown>): unknown {
  const { json } = source;
  if (
    !isObject(json) ||
    !(json.added_tokens === undefined || json.added_tokens === null || Array.isArray(json.added_tokens))
  )
    return json;
  const known: unknown[] = json.added_tokens ?? [];
  const contents = new Set(known.map((token) => (isObject(token) ? token.content : undefined)));
  const named = namedTokens(config);
  const further = [
    ...decoderTokens(config.added_tokens_decoder),
    ...listedTokens(source.addedTokens),
    ...piecesNamed(named, json.model),
  ].filter(({ content }) => {
    if (contents.has(content)) return false;
    contents.add(content);
    return true;
  });
  if (further.length === 0) return json;
  return {
    ...json,
    added_tokens: [
      ...known,
      ...further.map((token) => ({ ...token, special: token.special === true || named.has(token.content) })),
    ],
  };
}

interface FurtherToken extends Record<string, unknown> {
  id: number;
  content: unknown;
}

/** The tokens of `added_tokens_decoder`, an object with ids as keys. */
function decoderTokens(decoder: unknown): FurtherToken[] {
  if (!isObject(decoder)) return [];
  return Object.entries(decoder).map(
    ([id, token]) => ({ ...(isObject(token) ? token : { content: token }), id: Number(id) }) as FurtherToken,
  );
}

/** The tokens of added_tokens.json, an object with contents as keys and ids as values. */
function listedTokens(list: unknown): FurtherToken[] {
  return isObject(list) ? Object.entries(list).map(([content, id]) => ({ id: id as number, content })) : [];
}

/** Pieces of the vocabulary that the configuration names as BOS, EOS or the like. */
function piecesNamed(named: ReadonlySet<unknown>, model: unknown): FurtherToken[] {
  const vocab = isObject(model) ? model.vocab : undefined;
  if (!isObject(vocab)) return [];
  return [...named].flatMap((content) => {
    const id = typeof content === 'string' ? idIn(vocab, content) : undefined;
    return id === undefined ? [] : [{ id: id as number, content }];
  });
}

/** The id of a piece in a parsed vocabulary, which is an object, or a Map if it is large. */
function idIn(vocab: Record<string, unknown>, piece: string): unknown {
  if (vocab instanceof Map) return vocab.get(piece);
  return Object.hasOwn(vocab, piece) ? vocab[piece] : undefined;
}

/** The contents of the tokens that a configuration names as BOS, EOS or the like, which makes them control tokens. */
function namedTokens(config: Record<string, unknown>): Set<unknown> {
  const named = new Set<unknown>();
  for (const [name, value] of Object.entries(config)) {
    if (name !== 'additional_special_tokens' && !name.endsWith('_token')) continue;
    for (const token of [value].flat() as unknown[]) named.add(isObject(token) ? token.content : token);
  }
  return named;
}
