export { loadTokenizer } from './tokenizer.js';
export type { EncodeOptions, EncodeSlicedOptions, Tokenizer } from './tokenizer.js';
export type { ChatMessage, ChatOptions } from './chat_template.js';
export type { DecodeOptions, Detokenizer, DetokenizerOptions } from './detokenizer.js';
