import type { TokenizerSource } from '../checkpoint/types.js';
import { Pace } from '../util/pace.js';
import { AddedTokenSplitter, isControl } from './added_tokens.js';
import { BpeTokenizer, type BuiltParts, type Splitters } from './bpe_tokenizer.js';
import { convertGgufVocabulary } from './gguf_vocab.js';
import { huggingFaceParts } from './huggingface_parts.js';
import { invalidTokenizer } from './invalid.js';
import { createNormalizer, type Normalizer } from './normalizer.js';
import { byteLevelParts, sentencePieceParts } from './other_files.js';
import { PIECES_AT_ONCE, type TokenizerParts } from './parts.js';
import { chatTemplatesOf } from './template_names.js';
import type { Tokenizer } from './tokenizer.js';
import { parseTokenizerJson, type TokenizerJson } from './tokenizer_json.js';

/**
 * Builds a tokenizer, in slices of a few milliseconds between which the event loop runs. `modelVocabSize`: rows of the
 * model's output, where they are more than the tokenizer has ids; the ids in between decode to nothing. Rejects with
 * INVALID_TOKENIZER or ABORTED.
 */
export async function loadTokenizer(
  source: TokenizerSource,
  modelVocabSize = 0,
  signal?: AbortSignal,
): Promise<Tokenizer> {
  const pace = new Pace(signal);
  const parts = await partsOf(source, pace);
  const json = await parseTokenizerJson(parts.json, pace);
  const pieces = parts.pieces ?? (await piecesOf(json.model.vocab, pace));
  const normalize = createNormalizer(json.normalizer);
  const splitters = await pace.through(createSplitters(json, normalize));
  const templates = chatTemplatesOf(parts.config);
  // Chats take ten modules more.
  const { ChatEncoder } = templates ? await import('./chat_encoder.js') : {};
  return new BpeTokenizer(json, { pieces, normalize, splitters, ChatEncoder }, parts, modelVocabSize);
}

async function partsOf(source: TokenizerSource, pace: Pace): Promise<TokenizerParts> {
  switch (source.kind) {
    case 'huggingface':
      return huggingFaceParts(source);
    case 'byte_level':
      return byteLevelParts(source, pace);
    case 'sentencepiece':
      return sentencePieceParts(source, pace);
    case 'gguf':
      return convertGgufVocabulary(source.metadata, pace);
    case 'none':
      throw invalidTokenizer(`The model has no tokenizer: ${source.reason}`);
  }
}

function* createSplitters(json: TokenizerJson, normalize: Normalizer): Generator<void, BuiltParts['splitters']> {
  const none = (): Splitters => ({ raw: new AddedTokenSplitter(), normalized: new AddedTokenSplitter() });
  const splitters = { all: none(), plain: none() };
  for (const token of json.added_tokens) {
    const foundIn = token.normalized && json.normalizer !== null ? 'normalized' : 'raw';
    const content = foundIn === 'raw' ? token.content : yield* normalize(token.content);
    splitters.all[foundIn].insert(content, token);
    if (!isControl(token)) splitters.plain[foundIn].insert(content, token);
    yield;
  }
  return splitters;
}

/** Pieces by id. */
async function piecesOf(ids: ReadonlyMap<string, number>, pace: Pace): Promise<Array<string | undefined>> {
  const pieces: Array<string | undefined> = [];
  let count = 0;
  for (const [piece, id] of ids) {
    pieces[id] = piece;
    if (++count % PIECES_AT_ONCE === 0) await pace.pause();
  }
  return pieces;
}
