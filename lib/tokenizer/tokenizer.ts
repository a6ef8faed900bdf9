import type { ChatMessage } from './chat_messages.js';
import type { ChatOptions } from './chat_template.js';
import type { DecodeOptions, Detokenizer, DetokenizerOptions } from './detokenizer.js';

export interface EncodeOptions {
  /**
   * Add what the model's own rule puts around a text, such as BOS. BOS is not doubled where the text begins with it.
   * Default true.
   */
  addSpecialTokens?: boolean;
  /**
   * Read control tokens written in the text, such as `<s>`, as tokens. With false they are plain text, and so are other
   * added tokens of the form `<|…|>`. Default true.
   */
  parseSpecialTokens?: boolean;
  /**
   * The id of the token before the text; without it, the text is a beginning. After a token of text, the text is taken
   * as it is written: SentencePiece vocabularies put no space before it. So " time" continues "Once upon a" to "Once
   * upon a time", and "time" continues it to "Once upon atime". After an added token, such as a control token, the text
   * is encoded as it would be after that token within one text.
   */
  after?: number;
}

export interface EncodeSlicedOptions extends EncodeOptions {
  signal?: AbortSignal;
  /**
   * Stop soon after this many ids: the result is then longer than this, but not complete. For texts that are refused
   * when they are too long.
   */
  limit?: number;
}

/**
 * How messages become ids: `parseSpecialTokens` also reads control tokens written in messages as tokens. Default false.
 */
export type EncodeChatOptions = ChatOptions & Pick<EncodeOptions, 'parseSpecialTokens'>;

/** Text to ids and back. */
export interface Tokenizer {
  /** One more than the highest id. A model may have more rows than this; those ids stand for no text. */
  readonly vocabSize: number;
  readonly bosTokenId: number | undefined;
  /** Every id that ends generation. */
  readonly eosTokenIds: readonly number[];
  /**
   * A sentence for each thing in the files that cannot be followed, such as an end of text that the vocabulary lacks.
   */
  readonly warnings: readonly string[];
  /** The model's chat template, in Jinja; the default one of several. */
  readonly chatTemplate: string | undefined;
  /**
   * Names of the variables that the chat template reads, such as `tools` or `enable_thinking`. A template that does not
   * read `add_generation_prompt` ends the same way whether or not an answer is to begin. Throws INVALID_TOKENIZER when
   * the template is malformed.
   */
  readonly chatVariables: readonly string[];
  encode(text: string, options?: EncodeOptions): number[];
  /** Does what `encode` does, in slices of a few milliseconds between which the event loop runs. Throws ABORTED. */
  encodeSliced(text: string, options?: EncodeSlicedOptions): Promise<number[]>;
  decode(ids: Iterable<number>, options?: DecodeOptions): string;
  detokenizer(options?: DetokenizerOptions): Detokenizer;
  /** The bytes of text an id stands for, exactly; a control token's are its name. */
  tokenBytes(id: number): Uint8Array;
  /** The id of a piece as the vocabulary spells it, such as `▁the` or `Ġthe`. */
  tokenToId(piece: string): number | undefined;
  /** How the vocabulary spells an id; undefined for ids outside it. */
  idToToken(id: number): string | undefined;
  /** True for control tokens. */
  isSpecial(id: number): boolean;
  /**
   * Renders messages with the model's chat template. The text holds every special token the model expects, and also
   * anything in a message that looks like one; for ids to compute with, use `encodeChat`.
   * Throws INVALID_ARGUMENT without a template, for an option that the template does not read, or when it refuses the
   * messages; INVALID_TOKENIZER when it is malformed or goes beyond its limits of operations, text and time. Usual messages
   * take about a millisecond; the limit of time is two seconds, during which the event loop stands still.
   */
  applyChatTemplate(messages: ChatMessage[], options?: ChatOptions): string;
  /**
   * The ids of messages in the model's chat template, complete with special tokens. Control tokens come from the
   * template alone: one written in a message, a tool or a variable is plain text, to the template too. All other ids
   * are those of the rendered text.
   * Throws as `applyChatTemplate` does, and INVALID_ARGUMENT for messages that would change the template's control
   * tokens.
   */
  encodeChat(messages: ChatMessage[], options?: EncodeChatOptions): number[];
  /**
   * Does what `encodeChat` does, in slices of a few milliseconds between which the event loop runs; a template that
   * takes longer to render runs in a worker. Throws also ABORTED.
   */
  encodeChatSliced(messages: ChatMessage[], options?: EncodeChatOptions & { signal?: AbortSignal }): Promise<number[]>;
}
