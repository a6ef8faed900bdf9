import { CqilError } from '../errors.js';
import { expectOption, isSignal, readArgument, readKnownOptions } from '../util/options.js';
import { Pace } from '../util/pace.js';
import { AddedTokenSplitter, isControl } from './added_tokens.js';
import { BpeEncoder } from './bpe.js';
import type { ChatMessage } from './chat_messages.js';
import { ChatTemplate, chatTemplatesOf, expectChatOptions, type Chat, type ChatOptions } from './chat_template.js';
import { chatTexts, chatTextsAside, type ChatTexts } from './chat_texts.js';
import {
  createDetokenizer,
  decodeBytes,
  type DecodeOptions,
  type Detokenizer,
  type DetokenizerOptions,
} from './detokenizer.js';
import { quote } from './invalid.js';
import type { Normalizer } from './normalizer.js';
import type { TokenizerParts } from './parts.js';
import { createPreTokenizer, type Place, type PreTokenizer } from './pre_tokenizer.js';
import { resolveSpecialTokens, type SpecialTokens } from './special_tokens.js';
import { allOf } from './steps.js';
import { createPieceDecoder, type PieceDecoder } from './token_bytes.js';
import type { EncodeChatOptions, EncodeOptions, EncodeSlicedOptions, Tokenizer } from './tokenizer.js';
import type { AddedToken, TokenizerJson } from './tokenizer_json.js';
import { ControlTexts, expectGuards } from './user_text.js';

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
  private readonly template: ChatTemplate | undefined;
  private readonly normalize: Normalizer;
  private readonly pieces: Array<string | undefined>;
  private readonly splitters: BuiltParts['splitters'];
  private controls: ControlTexts | undefined;
  /** Whether there are control tokens that are found in normalized text. */
  private readonly normalizesControls: boolean;

  /** `built` belongs to the tokenizer from here on. */
  constructor(
    json: TokenizerJson,
    built: BuiltParts,
    parts: Pick<TokenizerParts, 'config' | 'generationConfig'>,
    modelVocabSize: number,
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
    if (templates) this.template = new ChatTemplate(templates, this.special.names);
  }

  get chatTemplate(): string | undefined {
    return this.template?.source;
  }

  get warnings(): readonly string[] {
    return this.special.warnings;
  }

  get chatVariables(): readonly string[] {
    return this.template?.variables ?? [];
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
      const parts: Uint8Array[] = [];
      for (const id of ids) parts.push(this.visibleBytes(id, skipSpecialTokens));
      return decodeBytes(parts, this.decoder.leadingSpaces);
    });
  }

  detokenizer(options: DetokenizerOptions = {}): Detokenizer {
    const { skipSpecialTokens = true, continues = false } = readKnownOptions('detokenizer', options, [
      'skipSpecialTokens',
      'continues',
    ]);
    return createDetokenizer(
      (id) => this.visibleBytes(id, skipSpecialTokens),
      continues ? 0 : this.decoder.leadingSpaces,
    );
  }

  tokenBytes(id: number): Uint8Array {
    this.checkId(id);
    const piece = this.pieces[id];
    if (piece === undefined) return NO_BYTES;
    return this.added.has(id) ? Buffer.from(piece, 'utf8') : this.decoder.bytes(piece);
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
    const template = this.requireTemplate();
    return template.render(allOf(template.read(messages, options))).text;
  }

  encodeChat(messages: ChatMessage[], options: EncodeChatOptions = {}): number[] {
    const { template, controls, chat } = allOf(this.readChat(messages, options));
    return allOf(this.chatIds(allOf(chatTexts(template, controls, chat))));
  }

  async encodeChatSliced(
    messages: ChatMessage[],
    options: EncodeChatOptions & { signal?: AbortSignal } = {},
  ): Promise<number[]> {
    expectChatOptions(options);
    const { signal, ...others } = readArgument('The options of a chat', () => ({ ...options }));
    expectOption('signal', signal, isSignal(signal), 'an AbortSignal');
    const pace = new Pace(signal);
    const { template, controls, chat } = await pace.through(this.readChat(messages, others));
    return pace.through(this.chatIds(await chatTextsAside(template, controls, chat, signal)));
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

  private requireTemplate(): ChatTemplate {
    if (!this.template)
      throw new CqilError('INVALID_ARGUMENT', 'This model has no chat template; give it a plain prompt.');
    return this.template;
  }

  /** `controls`: what no message may contain; undefined where control tokens in messages are read. */
  private *readChat(
    messages: ChatMessage[],
    options: EncodeChatOptions,
  ): Generator<void, { template: ChatTemplate; controls: ControlTexts | undefined; chat: Chat }> {
    expectChatOptions(options);
    const { parseSpecialTokens = false, ...others } = readArgument('The options of a chat', () => ({ ...options }));
    if (typeof parseSpecialTokens !== 'boolean')
      throw new CqilError(
        'INVALID_ARGUMENT',
        `parseSpecialTokens is ${quote(parseSpecialTokens)}; expected true or false.`,
      );
    const template = this.requireTemplate();
    const chat = yield* template.read(messages, others);
    if (parseSpecialTokens) return { template, controls: undefined, chat };
    this.controls ??= new ControlTexts([...this.added.values()].filter(isControl).map(({ content }) => content));
    return { template, controls: this.controls, chat };
  }

  private *chatIds({ text, guard, own }: ChatTexts): Generator<void, number[]> {
    const ids = yield* this.slices(text, { addSpecialTokens: false }, guard);
    if (own !== undefined) this.expectControls(ids, yield* this.slices(own, { addSpecialTokens: false }));
    return ids;
  }

  /**
   * Throws INVALID_ARGUMENT if the ids hold other control tokens than the template's own: the messages made the
   * difference.
   */
  private expectControls(ids: readonly number[], own: readonly number[]): void {
    const isControlId = (id: number): boolean => {
      const token = this.added.get(id);
      return token !== undefined && id !== this.bpe.unknownId && isControl(token);
    };
    const [found, expected] = [ids.filter(isControlId), own.filter(isControlId)];
    const at = found.findIndex((id, i) => id !== expected[i]);
    if (at < 0 && found.length === expected.length) return;
    const name = quote(this.pieces[(at < 0 ? expected[found.length] : found[at])!]);
    throw new CqilError(
      'INVALID_ARGUMENT',
      `With these messages the chat has other control tokens than its template writes, beginning at ${name}; ` +
        'expected messages without the texts of control tokens, or parseSpecialTokens: true.',
    );
  }

  /** Encodes step by step; every step is short. */
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

  private visibleBytes(id: number, skipSpecialTokens: boolean): Uint8Array {
    const bytes = this.tokenBytes(id);
    return skipSpecialTokens && this.isSpecial(id) ? NO_BYTES : bytes;
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
