import type { GgufStrings, GgufValue } from '../checkpoint/types.js';
import type { Pace } from '../util/pace.js';
import { preTokenizerRule, splitsBy, type PreTokenizerRule } from './gguf_pre_tokenizers.js';
import { invalidTokenizer, quote } from './invalid.js';
import { PIECES_AT_ONCE, type MergeRank, type TokenizerParts } from './parts.js';
import { MAX_ADDED_TOKENS, MAX_VOCAB_SIZE } from './tokenizer_json.js';
import { withNamedTemplates } from './template_names.js';

type Metadata = ReadonlyMap<string, GgufValue>;

/** The id that writers of GGUF files give a token that the vocabulary lacks. */
const NO_TOKEN = 2 ** 32 - 1;

/** SentencePiece's spelling of text, and the way back. */
const SPACES_MARKED = { type: 'Replace', pattern: { String: ' ' }, content: '▁' };
const TEXT_DECODERS = [
  { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
  { type: 'ByteFallback' },
  { type: 'Fuse' },
];

/** llama.cpp's token types, as `tokenizer.ggml.token_type` holds them. */
export const TOKEN_TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 };

/**
 * Converts the vocabulary of a GGUF file to the parts of a Hugging Face tokenizer that gives llama.cpp's ids.
 * `tokenizer.ggml.model` is "llama" (SentencePiece: scores, byte fallback) or "gpt2" or "gemma4" (merges; the
 * pre-tokenizer's name says what pieces are). Throws INVALID_TOKENIZER.
 */
export async function convertGgufVocabulary(metadata: Metadata, pace: Pace): Promise<TokenizerParts> {
  const model = metadata.get('tokenizer.ggml.model');
  const pieces = await readPieces(metadata, pace);
  const vocab = await vocabularyOf(pieces, pace);
  const types = readNumbers(metadata, 'token_type', pieces.length) ?? pieces.map(() => TOKEN_TYPE.normal);
  switch (model) {
    case 'llama':
      return convertSentencePiece(metadata, pieces, vocab, types);
    // llama.cpp, too, falls back to its first pre-tokenizer for files from before there were several.
    case 'gpt2':
      return convertMerges(
        metadata,
        preTokenizerRule(metadata.get('tokenizer.ggml.pre') ?? 'default'),
        pieces,
        vocab,
        types,
      );
    case 'gemma4':
      return convertMerges(metadata, preTokenizerRule('gemma4'), pieces, vocab, types);
    default:
      throw invalidTokenizer(`tokenizer.ggml.model is ${quote(model)}; expected "llama", "gpt2" or "gemma4".`);
  }
}

function convertSentencePiece(
  metadata: Metadata,
  pieces: string[],
  vocab: Map<string, number>,
  types: ArrayLike<number>,
): TokenizerParts {
  const scores = readNumbers(metadata, 'scores', pieces.length);
  if (!scores) throw invalidTokenizer('tokenizer.ggml.scores is missing; expected a score for every token.');
  const addSpacePrefix = readBoolean(metadata, 'add_space_prefix') ?? true;
  const unknownId = readTokenId(metadata, 'unknown_token_id', pieces.length) ?? 0;

  const rules = {
    unknown: pieces[unknownId],
    addsSpacePrefix: addSpacePrefix,
    byteFallback: true,
    // GGUF files do not say so; llama.cpp knows it by the model's name.
    stripsRight: metadata.get('general.architecture') === 'phi3' ? stripsRightInPhi3 : undefined,
  };
  return {
    json: sentencePieceJson(pieces, vocab, types, scores, rules),
    ...surroundings(metadata, pieces, true),
    pieces,
  };
}

/** What differs between vocabularies of SentencePiece. */
interface SentencePieceRules {
  unknown: string | undefined;
  addsSpacePrefix: boolean;
  byteFallback: boolean;
  stripsRight?: (content: string) => boolean;
}

/**
 * A tokenizer.json that encodes as SentencePiece does with these pieces. `types` are llama.cpp's, which are
 * SentencePiece's.
 */
export function sentencePieceJson(
  pieces: string[],
  vocab: Map<string, number>,
  types: ArrayLike<number>,
  scores: ArrayLike<number>,
  rules: SentencePieceRules,
): unknown {
  const normalizers: unknown[] = [SPACES_MARKED];
  const decoders: unknown[] = [...TEXT_DECODERS];
  if (rules.addsSpacePrefix) {
    normalizers.unshift({ type: 'Prepend', prepend: '▁' });
    decoders.push({ type: 'Strip', content: ' ', start: 1, stop: 0 });
  }
  return {
    added_tokens: addedTokens(pieces, types, rules.stripsRight),
    normalizer: { type: 'Sequence', normalizers },
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: 'Sequence', decoders },
    model: {
      type: 'BPE',
      vocab,
      merges: mergeRankFromScores(vocab, types, scores),
      unk_token: rules.unknown,
      // Without bytes, a run of unknown characters is one unknown token.
      fuse_unk: !rules.byteFallback,
      byte_fallback: rules.byteFallback,
    },
  };
}

/**
 * SentencePiece merges the two neighbours whose joint piece has the best score, the leftmost of equals: so a pair's
 * rank is the number of better scores. Text never merges into control tokens or byte tokens.
 */
function mergeRankFromScores(
  ids: ReadonlyMap<string, number>,
  types: ArrayLike<number>,
  scores: ArrayLike<number>,
): MergeRank {
  // Searched for each pair that is asked for: a table of ranks would take longer to build than the vocabulary itself.
  const ascending = Float64Array.from(scores).sort();
  return (joint) => {
    const id = ids.get(joint);
    if (
      id === undefined ||
      types[id] === TOKEN_TYPE.unknown ||
      types[id] === TOKEN_TYPE.control ||
      types[id] === TOKEN_TYPE.byte
    )
      return undefined;
    return ascending.length - countUpTo(ascending, scores[id]!);
  };
}

/** How many of the values, which ascend, are at most `most`. */
function countUpTo(ascending: Float64Array, most: number): number {
  let low = 0;
  let high = ascending.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ascending[middle]! <= most) low = middle + 1;
    else high = middle;
  }
  return low;
}

function convertMerges(
  metadata: Metadata,
  rule: PreTokenizerRule,
  pieces: string[],
  vocab: Map<string, number>,
  types: ArrayLike<number>,
): TokenizerParts {
  const { piecesAreText = false, ignoreMerges = false } = rule;
  const splits = splitsBy(rule);
  return {
    json: {
      added_tokens: addedTokens(pieces, types),
      normalizer: piecesAreText ? SPACES_MARKED : null,
      pre_tokenizer: {
        type: 'Sequence',
        pretokenizers: piecesAreText ? splits : [...splits, { type: 'ByteLevel', use_regex: false }],
      },
      post_processor: null,
      decoder: piecesAreText ? { type: 'Sequence', decoders: TEXT_DECODERS } : { type: 'ByteLevel' },
      model: {
        type: 'BPE',
        vocab,
        merges: metadata.get('tokenizer.ggml.merges'),
        unk_token: null,
        byte_fallback: piecesAreText,
        ignore_merges: ignoreMerges,
      },
    },
    ...surroundings(metadata, pieces, rule.addBos === true),
    pieces,
  };
}

/** Special tokens and the chat template, as a Hugging Face folder would hold them. */
function surroundings(
  metadata: Metadata,
  pieces: string[],
  addBos: boolean,
): Pick<TokenizerParts, 'config' | 'generationConfig'> {
  const id = (name: string): number | undefined => readTokenId(metadata, `${name}_token_id`, pieces.length);
  const piece = (name: string): string | undefined => {
    const tokenId = id(name);
    return tokenId === undefined ? undefined : pieces[tokenId];
  };
  return {
    config: {
      bos_token: piece('bos'),
      eos_token: piece('eos'),
      unk_token: piece('unknown'),
      pad_token: piece('padding'),
      add_bos_token: readBoolean(metadata, 'add_bos_token') ?? addBos,
      add_eos_token: readBoolean(metadata, 'add_eos_token') ?? false,
      chat_template: readChatTemplates(metadata),
    },
    generationConfig: {
      bos_token_id: id('bos'),
      eos_token_id: ['eos', 'eot', 'eom']
        .map((name) => metadata.get(`tokenizer.ggml.${name}_token_id`))
        .filter((value) => value !== NO_TOKEN),
    },
  };
}

/**
 * The chat templates as tokenizer_config.json would hold them. Further ones have keys such as
 * `tokenizer.chat_template.tool_use`.
 */
function readChatTemplates(metadata: Metadata): unknown {
  const key = 'tokenizer.chat_template';
  const named = [...metadata]
    .filter(([name]) => name.startsWith(`${key}.`))
    .map(([name, template]) => ({ name: name.slice(key.length + 1), template }));
  return withNamedTemplates(metadata.get(key), named);
}

/** Phi 3's tokens that take the white space after them: all but those of LLaMA's vocabulary and the end of texts. */
function stripsRightInPhi3(content: string): boolean {
  return !['<unk>', '<s>', '<|endoftext|>'].includes(content);
}

/**
 * Tokens that stand apart from the merges: control tokens, and those the vocabulary's makers defined. `stripsRight`:
 * whether one takes the white space after it; none does unless it is given.
 */
function addedTokens(
  pieces: string[],
  types: ArrayLike<number>,
  stripsRight: (content: string) => boolean = () => false,
): unknown[] {
  const tokens: unknown[] = [];
  pieces.forEach((content, id) => {
    const special = types[id] === TOKEN_TYPE.control || types[id] === TOKEN_TYPE.unknown;
    if (!special && types[id] !== TOKEN_TYPE.userDefined) return;
    const token = { id, content, special, normalized: false, rstrip: stripsRight(content) };
    if (tokens.push(token) > MAX_ADDED_TOKENS) {
      throw invalidTokenizer(
        `More than ${MAX_ADDED_TOKENS} tokens are control tokens or user-defined; expected fewer.`,
      );
    }
  });
  return tokens;
}

/** The id of each piece. */
export async function vocabularyOf(pieces: string[], pace: Pace): Promise<Map<string, number>> {
  const ids = new Map<string, number>();
  for (const [id, piece] of pieces.entries()) {
    ids.set(piece, id);
    if (id % PIECES_AT_ONCE === 0) await pace.pause();
  }
  return ids;
}

async function readPieces(metadata: Metadata, pace: Pace): Promise<string[]> {
  const strings = metadata.get('tokenizer.ggml.tokens');
  if (!isStrings(strings))
    throw invalidTokenizer(`tokenizer.ggml.tokens is ${quote(strings)}; expected an array of strings.`);
  if (strings.length === 0 || strings.length > MAX_VOCAB_SIZE) {
    throw invalidTokenizer(`tokenizer.ggml.tokens has ${strings.length} strings; expected 1 to ${MAX_VOCAB_SIZE}.`);
  }
  const pieces: string[] = [];
  for (const piece of strings) {
    if (pieces.push(piece) % PIECES_AT_ONCE === 0) await pace.pause();
  }
  return pieces;
}

function isStrings(value: GgufValue | undefined): value is GgufStrings {
  return typeof value === 'object' && !Array.isArray(value) && !ArrayBuffer.isView(value);
}

function readNumbers(metadata: Metadata, name: string, length: number): ArrayLike<number> | undefined {
  const values = metadata.get(`tokenizer.ggml.${name}`);
  if (values === undefined) return undefined;
  const isArray = Array.isArray(values) || ArrayBuffer.isView(values);
  if (
    !isArray ||
    values.length !== length ||
    Array.prototype.some.call(values, (value) => typeof value !== 'number' || Number.isNaN(value))
  ) {
    throw invalidTokenizer(
      `tokenizer.ggml.${name} is ${quote(values)}; expected ${length} numbers, one for every token.`,
    );
  }
  return values as ArrayLike<number>;
}

/** An id, or undefined where there is none or it lies outside the vocabulary. */
function readTokenId(metadata: Metadata, name: string, vocabSize: number): number | undefined {
  const id = metadata.get(`tokenizer.ggml.${name}`);
  return typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < vocabSize ? id : undefined;
}

function readBoolean(metadata: Metadata, name: string): boolean | undefined {
  const value = metadata.get(`tokenizer.ggml.${name}`);
  return typeof value === 'boolean' ? value : undefined;
}
