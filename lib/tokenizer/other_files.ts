import type { TokenizerSource } from '../checkpoint/types.js';
import type { Pace } from '../util/pace.js';
import { preTokenizerRule, splitsBy } from './gguf_pre_tokenizers.js';
import { sentencePieceJson, TOKEN_TYPE, vocabularyOf } from './gguf_vocab.js';
import { huggingFaceParts } from './huggingface_parts.js';
import { invalidTokenizer, objectOf, quote } from './invalid.js';
import { PIECES_AT_ONCE, type TokenizerParts } from './parts.js';
import { HOW_TO_CONVERT, readSentencePieceModel } from './sentencepiece_model.js';
import { MAX_MERGES } from './tokenizer_json.js';

const BYTE_PAIR_ENCODING = 2;

/**
 * The tokenizer of a folder that has a tokenizer.model of SentencePiece and no tokenizer.json. Throws
 * INVALID_TOKENIZER.
 */
export async function sentencePieceParts(
  source: TokenizerSource & { kind: 'sentencepiece' },
  pace: Pace,
): Promise<TokenizerParts> {
  const model = await readSentencePieceModel(source.model, pace);
  if (model.modelType !== BYTE_PAIR_ENCODING) {
    throw invalidTokenizer(
      `tokenizer.model is of SentencePiece's type ${model.modelType}; only 2, byte-pair encoding, is supported.`,
    );
  }
  const refused = [
    model.hasTable && 'normalizes text by a table of its own',
    model.removesExtraSpaces && 'removes extra spaces',
    model.spaceAsSuffix && 'puts spaces after words',
    !model.escapesSpaces && 'keeps spaces as they are',
    model.types.includes(TOKEN_TYPE.userDefined) &&
      `finds the piece ${quote(model.pieces[model.types.indexOf(TOKEN_TYPE.userDefined)])} before it merges others`,
  ].find(Boolean);
  if (refused) throw invalidTokenizer(`tokenizer.model ${refused}, which cqil does not; ${HOW_TO_CONVERT}`);
  const { pieces, types, scores } = model;
  const piece = (id: number): string | undefined => pieces[id];
  const own = {
    bos_token: piece(model.bosId),
    eos_token: piece(model.eosId),
    unk_token: piece(model.unknownId),
    pad_token: piece(model.padId),
    add_bos_token: true,
  };
  const json = sentencePieceJson(pieces, await vocabularyOf(pieces, pace), types, scores, {
    unknown: pieces[model.unknownId],
    addsSpacePrefix: model.addsSpacePrefix,
    byteFallback: model.byteFallback,
  });
  return {
    ...huggingFaceParts({ ...source, kind: 'huggingface', json, config: { ...own, ...objectOf(source.config) } }),
    pieces,
  };
}

/** What tokenizers of these classes do that vocab.json and merges.txt do not say. */
const CLASSES: Record<string, { pre?: string; normalizer?: object; defaults: Record<string, string> }> = {
  GPT2Tokenizer: { defaults: { bos_token: '<|endoftext|>', eos_token: '<|endoftext|>', unk_token: '<|endoftext|>' } },
  Qwen2Tokenizer: {
    pre: 'qwen2',
    normalizer: { type: 'NFC' },
    defaults: { eos_token: '<|endoftext|>', pad_token: '<|endoftext|>' },
  },
};

/** The tokenizer of a folder that has vocab.json and merges.txt and no tokenizer.json. Throws INVALID_TOKENIZER. */
export async function byteLevelParts(
  source: TokenizerSource & { kind: 'byte_level' },
  pace: Pace,
): Promise<TokenizerParts> {
  const given = objectOf(source.config);
  const name = typeof given.tokenizer_class === 'string' ? given.tokenizer_class.replace(/Fast$/, '') : undefined;
  const rules = name !== undefined && Object.hasOwn(CLASSES, name) ? CLASSES[name]! : undefined;
  if (!rules) {
    throw invalidTokenizer(
      `vocab.json and merges.txt do not say how text is cut, and the tokenizer_class is ${quote(given.tokenizer_class)}; ` +
        `expected ${Object.keys(CLASSES).join(' or ')}, or ${HOW_TO_CONVERT}`,
    );
  }
  const config = { ...rules.defaults, ...given };
  const splits = rules.pre === undefined ? [] : splitsBy(preTokenizerRule(rules.pre));
  const byteLevel = {
    type: 'ByteLevel',
    add_prefix_space: config.add_prefix_space === true,
    use_regex: splits.length === 0,
  };
  const json = {
    added_tokens: [],
    normalizer: rules.normalizer ?? null,
    pre_tokenizer: { type: 'Sequence', pretokenizers: [...splits, byteLevel] },
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab: source.vocab, merges: await mergesOf(source.merges, pace) },
  };
  return huggingFaceParts({ ...source, kind: 'huggingface', json, config });
}

/**
 * The lines of merges.txt without the one that names its version. Throws INVALID_TOKENIZER for more than any vocabulary
 * has.
 */
async function mergesOf(text: string, pace: Pace): Promise<string[]> {
  const merges: string[] = [];
  let count = 0;
  for (let start = 0; start < text.length;) {
    const found = text.indexOf('\n', start);
    const end = found < 0 ? text.length : found;
    const line = text.slice(start, text.charCodeAt(end - 1) === 0x0d ? end - 1 : end);
    start = end + 1;
    if (line !== '' && !line.startsWith('#version')) merges.push(line);
    if (++count > MAX_MERGES) throw invalidTokenizer(`merges.txt has more than ${MAX_MERGES} lines; expected fewer.`);
    if (count % PIECES_AT_ONCE === 0) await pace.pause();
  }
  return merges;
}
