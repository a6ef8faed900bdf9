import { CqilError } from '../errors.js';
import { expectOption, isSignal, readArgument, readKnownOptions } from '../util/options.js';
import { Pace } from '../util/pace.js';
import { AddedTokenSplitter, isControl } from './added_tokens.js';
import { BpeEncoder } from './bpe.js';
import type { ChatEncoder } from './chat_encoder.js';
import type { ChatMessage } from './chat_messages.js';
import type { ChatOptions } from './chat_template.js';
import {
  createDetokenizer,
  type BytesOf,
  decodeBytes,
  type DecodeOptions,
  type Detokenizer,
  type DetokenizerOptions,
} from './detokenizer.js';
import { invalidTokenizer, quote } from './invalid.js';
import type { Normalizer } from './normalizer.js';
import type { TokenizerParts } from './parts.js';
import { createPreTokenizer, type Place, type PreTokenizer } from './pre_tokenizer.js';
import { resolveSpecialTokens, type SpecialTokens } from './special_tokens.js';
import { allOf } from './slices.js';
import { createPieceDecoder, type PieceDecoder } from './token_bytes.js';
import type { EncodeChatOptions, EncodeOptions, EncodeSlicedOptions, Tokenizer } from './tokenizer.js';
import type { AddedToken, TokenizerJson } from './tokenizer_json.js';
import { chatTemplatesOf } from './template_names.js';

const ENCODE_OPTIONS = ['addSpecialTokens', 'parseSpecialTokens', 'after'];
const NO_BYTES = new Uint8Array(0);

/** Added tokens found in raw and in normalized text. */
export interface Splitters {
  raw: AddedTokenSplitter;
  normalized: AddedTokenSplitter;
}

/** The parts of a tokenizer that take a while to build. */
export interface BuiltParts {
  /** By id. */
  pieces: Array<string | undefined>;
  normalize: Normalizer;
  /** With control tokens and without. */
  splitters: { all: Splitters; plain: Splitters };
  /** Encodes chats, where there is a template. */
  ChatEncoder?: typeof ChatEncoder;
}

/** Text to ids and back by byte-pair encoding. */
export class BpeTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly bosTokenId: number | undefined;
  readonly eosTokenIds: readonly number[];
  /** Added tokens by id and by content; what else there is, the encoder knows. */
  private readonly added = new Map<number, AddedToken>();
  private readonly addedIds = new Map<string, number>();
  private readonly idLimit: number;
  private readonly bpe: BpeEncoder;
  private readonly preTokenize: PreTokenizer;
  private readonly decoder: PieceDecoder;
  private readonly special: SpecialTokens;
  private readonly chats: ChatEncoder | undefined;
  private readonly normalize: Normalizer;
  private readonly pieces: Array<string | undefined>;
  private readonly splitters: BuiltParts['splitters'];
  /** Whether there are control tokens that are found in normalized text. */
  private readonly normalizesControls: boolean;

  /** `built` belongs to the tokenizer from here on. */
  constructor(
    json: TokenizerJson,
    built: BuiltParts,
    parts: Pick<TokenizerParts, 'config' | 'generationConfig'>,
    private readonly modelVocabSize: number,
  ) {
    this.bpe = new BpeEncoder(json.model);
    this.pieces = built.pieces;
    this.normalize = built.normalize;
    this.splitters = built.splitters;
    for (const token of json.added_tokens) {
      this.added.set(token.id, token);
      this.addedIds.set(token.content, token.id);
      this.pieces[token.id] = token.content;
    }
    this.vocabSize = this.pieces.length;
    this.idLimit = Math.max(this.vocabSize, modelVocabSize);

    this.preTokenize = createPreTokenizer(json.pre_tokenizer);
    this.decoder = createPieceDecoder(json.decoder);
    this.normalizesControls =
      json.normalizer !== null && json.added_tokens.some((token) => token.normalized && isControl(token));
    this.special = resolveSpecialTokens(json.post_processor, parts.config, parts.generationConfig, {
      idOf: (token) => this.tokenToId(token),
      isAdded: (id) => this.added.has(id),
      size: this.idLimit,
    });
    this.bosTokenId = this.special.bosTokenId;
    this.eosTokenIds = this.special.eosTokenIds;
    const templates = chatTemplatesOf(parts.config);
    if (templates && built.ChatEncoder)
      this.chats = new built.ChatEncoder(templates, this.special.names, {
        controls: json.added_tokens.filter(isControl).map(({ content }) => content),
        isControl: (id) => id !== this.bpe.unknownId && this.added.has(id) && isControl(this.added.get(id)!),
        encode: (text, guard) => this.slices(text, { addSpecialTokens: false }, guard),
        idToToken: (id) => this.pieces[id],
      });
  }

  get chatTemplate(): string | undefined {
    return this.chats?.source;
  }

  get warnings(): readonly string[] {
    const { warnings } = this.special;
    if (this.modelVocabSize === 0 || this.vocabSize <= this.modelVocabSize) return warnings;
    return [
      ...warnings,
      `The tokenizer has ids up to ${this.vocabSize - 1}, and the model ${this.modelVocabSize} rows; texts that take ` +
        'an id beyond them are refused.',
    ];
  }

  get chatVariables(): readonly string[] {
    return this.chats?.variables ?? [];
  }

  encode(text: string, options: EncodeOptions = {}): number[] {
    return allOf(this.slices(text, this.readEncodeOptions('encode', options, ENCODE_OPTIONS)));
  }

  async encodeSliced(text: string, options: EncodeSlicedOptions = {}): Promise<number[]> {
    const read = this.readEncodeOptions('encodeSliced', options, [...ENCODE_OPTIONS, 'signal', 'limit']);
    return new Pace(read.signal).through(this.slices(text, read));
  }

  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    const { skipSpecialTokens = true } = readKnownOptions('decode', options, ['skipSpecialTokens']);
    return readArgument('The ids to decode', () => {
      expectOption(
        'The ids to decode',
        ids,
        typeof ids === 'object' && ids !== null && Symbol.iterator in ids,
        'an array of token ids',
      );
      return decodeBytes(ids, this.visibleBytes(skipSpecialTokens), this.decoder.leadingSpaces);
    });
  }

  detokenizer(options: DetokenizerOptions = {}): Detokenizer {
    const { skipSpecialTokens = true, continues = false } = readKnownOptions('detokenizer', options, [
      'skipSpecialTokens',
      'continues',
    ]);
    return createDetokenizer(
      this.visibleBytes(skipSpecialTokens),
      continues ? 0 : this.decoder.leadingSpaces,
      !continues,
    );
  }

  tokenBytes(id: number): Uint8Array {
    return this.bytesOf(id, false) ?? NO_BYTES;
  }

  tokenToId(piece: string): number | undefined {
    return this.addedIds.get(piece) ?? this.bpe.ids.get(piece);
  }

  idToToken(id: number): string | undefined {
    return Number.isInteger(id) ? this.pieces[id] : undefined;
  }

  isSpecial(id: number): boolean {
    return this.added.get(id)?.special === true;
  }

  applyChatTemplate(messages: ChatMessage[], options?: ChatOptions): string {
    return this.requireChats().render(messages, options);
  }

  encodeChat(messages: ChatMessage[], options: EncodeChatOptions = {}): number[] {
    return this.requireChats().encode(messages, options);
  }

  async encodeChatSliced(
    messages: ChatMessage[],
    options: EncodeChatOptions & { signal?: AbortSignal } = {},
  ): Promise<number[]> {
    return this.requireChats().encodeSliced(messages, options);
  }

  private readEncodeOptions(call: string, given: EncodeSlicedOptions, known: readonly string[]): EncodeSlicedOptions {
    const options = readKnownOptions(call, given, known);
    const { addSpecialTokens, parseSpecialTokens, after, limit, signal } = options;
    const isFlag = (value: unknown): boolean => value === undefined || typeof value === 'boolean';
    expectOption('addSpecialTokens', addSpecialTokens, isFlag(addSpecialTokens), 'true or false');
    expectOption('parseSpecialTokens', parseSpecialTokens, isFlag(parseSpecialTokens), 'true or false');
    expectOption(
      'limit',
      limit,
      limit === undefined || (typeof limit === 'number' && limit >= 0),
      'a number of ids, 0 or more',
    );
    expectOption('signal', signal, isSignal(signal), 'an AbortSignal');
    if (after !== undefined) this.checkId(after);
    return options;
  }

  private requireChats(): ChatEncoder {
    if (!this.chats)
      throw new CqilError('INVALID_ARGUMENT', 'This model has no chat template; give it a plain prompt.');
    return this.chats;
  }

  /** Encodes in short slices. */
  private *slices(text: string, options: EncodeSlicedOptions, guard?: string): Generator<void, number[]> {
    const { addSpecialTokens = true, parseSpecialTokens = true, after, limit = Infinity } = options;
    if (typeof text !== 'string')
      throw new CqilError('INVALID_ARGUMENT', `The text to encode is ${quote(text)}; expected a string.`);
    const { raw, normalized } = this.splitters[parseSpecialTokens ? 'all' : 'plain'];
    const unguarded = (part: string): string => (guard === undefined ? part : part.replaceAll(guard, ''));
    const ids: number[] = [];
    let place: Place = after === undefined ? 'start' : this.added.has(after) ? 'within' : 'continues';
    for (const section of raw.split(text)) {
      if (ids.length > limit) return ids;
      if (section === undefined) {
        yield;
        continue;
      }
      if (typeof section !== 'string') {
        ids.push(section.id);
        place = 'within';
        continue;
      }
      for (const part of normalized.split(yield* this.normalized(section, place === 'continues', guard))) {
        if (ids.length > limit) return ids;
        if (part === undefined) {
          yield;
          continue;
        }
        if (typeof part !== 'string') ids.push(part.id);
        else
          for (const _ of this.encodePart(unguarded(part), place, ids)) {
            if (ids.length > limit) return ids;
            yield;
          }
        place = 'within';
      }
      place = 'within';
    }
    if (addSpecialTokens) this.surround(ids);
    return ids;
  }

  /** Appends the ids of normalized text without added tokens. */
  private *encodePart(part: string, place: Place, ids: number[]): Generator<void> {
    for (const word of this.preTokenize(part, place)) {
      if (word === undefined) yield;
      else yield* this.bpe.encode(word, ids);
    }
  }

  /** Normalizes a section. Guards stay in it only if control tokens are looked for after normalization, too. */
  private *normalized(section: string, continues: boolean, guard: string | undefined): Generator<void, string> {
    if (guard === undefined) return yield* this.normalize(section, continues);
    if (!this.normalizesControls) return yield* this.normalize(section.replaceAll(guard, ''), continues);
    const normalized = yield* this.normalize(section, continues);
    expectGuards(normalized, section, guard);
    return normalized;
  }

  private surround(ids: number[]): void {
    const { prefix, suffix } = this.special;
    const startsWithPrefix = prefix.length > 0 && prefix.every((id, index) => ids[index] === id);
    if (!startsWithPrefix) ids.unshift(...prefix);
    ids.push(...suffix);
  }

  /** Undefined for an id that stands for no piece. */
  private bytesOf(id: number, first: boolean): Uint8Array | undefined {
    this.checkId(id);
    const piece = this.pieces[id];
    if (piece === undefined) return undefined;
    return this.added.has(id) ? this.decoder.addedBytes(piece, first) : this.decoder.bytes(piece, first);
  }

  private visibleBytes(skipSpecialTokens: boolean): BytesOf {
    return (id, first) => {
      const bytes = this.bytesOf(id, first);
      return skipSpecialTokens && this.isSpecial(id) ? undefined : bytes;
    };
  }

  private checkId(id: number): void {
    if (!Number.isInteger(id) || id < 0 || id >= this.idLimit) {
      throw new CqilError(
        'INVALID_ARGUMENT',
        `A token id is ${quote(id)}; expected an integer from 0 to ${this.idLimit - 1}.`,
      );
    }
  }
}

/**
 * Throws INVALID_TOKENIZER if normalizing a text has removed guards: then a user's control tokens could come through.
 */
function expectGuards(normalized: string, text: string, guard: string): void {
  if (normalized.split(guard).length === text.split(guard).length) return;
  throw invalidTokenizer(
    "The tokenizer's normalizer removes what keeps control tokens in messages plain text; expected messages " +
      'without the texts of such tokens.',
  );
}
