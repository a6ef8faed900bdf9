import { CqilError } from '../errors.js';
import { expectOption, isSignal, readArgument } from '../util/options.js';
import { Pace } from '../util/pace.js';
import type { ChatMessage } from './chat_messages.js';
import { ChatTemplate, expectChatOptions, type Chat, type ChatOptions } from './chat_template.js';
import { chatTexts, chatTextsAside, type ChatTexts } from './chat_texts.js';
import { quote } from './invalid.js';
import { allOf } from './slices.js';
import type { EncodeChatOptions } from './tokenizer.js';
import { ControlTexts } from './user_text.js';

/** What a chat is encoded with. */
export interface ChatTokens {
  /** The texts of all control tokens. */
  controls: readonly string[];
  /** Whether an id, found in a text, is a control token's. */
  isControl(id: number): boolean;
  /** Encodes a text as it is, in short slices; a control token's text with `guard` in it is plain text. */
  encode(text: string, guard?: string): Generator<void, number[]>;
  idToToken(id: number): string | undefined;
}

/** Messages to ids, by a chat template. */
export class ChatEncoder {
  readonly #template: ChatTemplate;
  readonly #tokens: ChatTokens;
  #controls: ControlTexts | undefined;

  /** `sources` and `names` as for `ChatTemplate`. */
  constructor(
    sources: ReadonlyMap<string, string>,
    names: Readonly<Record<string, string | string[]>>,
    tokens: ChatTokens,
  ) {
    this.#template = new ChatTemplate(sources, names);
    this.#tokens = tokens;
  }

  /** The template, the default one of several. */
  get source(): string {
    return this.#template.source;
  }

  /** Names of the variables that the template reads. Throws INVALID_TOKENIZER when it is malformed. */
  get variables(): string[] {
    return this.#template.variables;
  }

  /** See `Tokenizer.applyChatTemplate`. */
  render(messages: ChatMessage[], options?: ChatOptions): string {
    return this.#template.render(allOf(this.#template.read(messages, options))).text;
  }

  /** See `Tokenizer.encodeChat`. */
  encode(messages: ChatMessage[], options: EncodeChatOptions): number[] {
    const { controls, chat } = allOf(this.#read(messages, options));
    return allOf(this.#ids(allOf(chatTexts(this.#template, controls, chat))));
  }

  /** See `Tokenizer.encodeChatSliced`. */
  async encodeSliced(
    messages: ChatMessage[],
    options: EncodeChatOptions & { signal?: AbortSignal },
  ): Promise<number[]> {
    expectChatOptions(options);
    const { signal, ...others } = readArgument('The options of a chat', () => ({ ...options }));
    expectOption('signal', signal, isSignal(signal), 'an AbortSignal');
    const pace = new Pace(signal);
    const { controls, chat } = await pace.through(this.#read(messages, others));
    return pace.through(this.#ids(await chatTextsAside(this.#template, controls, chat, signal)));
  }

  /** `controls`: what no message may contain; undefined where control tokens in messages are read. */
  *#read(
    messages: ChatMessage[],
    options: EncodeChatOptions,
  ): Generator<void, { controls: ControlTexts | undefined; chat: Chat }> {
    expectChatOptions(options);
    const { parseSpecialTokens = false, ...others } = readArgument('The options of a chat', () => ({ ...options }));
    if (typeof parseSpecialTokens !== 'boolean')
      throw new CqilError(
        'INVALID_ARGUMENT',
        `parseSpecialTokens is ${quote(parseSpecialTokens)}; expected true or false.`,
      );
    const chat = yield* this.#template.read(messages, others);
    if (parseSpecialTokens) return { controls: undefined, chat };
    this.#controls ??= new ControlTexts(this.#tokens.controls);
    return { controls: this.#controls, chat };
  }

  *#ids({ text, guard, own }: ChatTexts): Generator<void, number[]> {
    const ids = yield* this.#tokens.encode(text, guard);
    if (own !== undefined) this.#expectControls(ids, yield* this.#tokens.encode(own));
    return ids;
  }

  /**
   * Throws INVALID_ARGUMENT if the ids hold other control tokens than the template's own: the messages made the
   * difference.
   */
  #expectControls(ids: readonly number[], own: readonly number[]): void {
    const [found, expected] = [ids, own].map((all) => all.filter((id) => this.#tokens.isControl(id))) as [
      number[],
      number[],
    ];
    const at = found.findIndex((id, i) => id !== expected[i]);
    if (at < 0 && found.length === expected.length) return;
    const name = quote(this.#tokens.idToToken((at < 0 ? expected[found.length] : found[at])!));
    throw new CqilError(
      'INVALID_ARGUMENT',
      `With these messages the chat has other control tokens than its template writes, beginning at ${name}; ` +
        'expected messages without the texts of control tokens, or parseSpecialTokens: true.',
    );
  }
}
