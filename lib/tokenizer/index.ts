export { loadTokenizer } from './load_tokenizer.js';
export type { EncodeChatOptions, EncodeOptions, EncodeSlicedOptions, Tokenizer } from './tokenizer.js';
export type { ChatMessage, ChatPart } from './chat_messages.js';
export type { ChatOptions } from './chat_template.js';
export type { DecodeOptions, Detokenizer, DetokenizerOptions } from './detokenizer.js';
