import type { Template } from '@huggingface/jinja';
import { CqilError } from '../errors.js';
import { invalidTokenizer, isObject } from './invalid.js';

export interface ChatMessage {
  role: string;
  content: string;
  /** What else a template may read: tool calls, names. */
  [field: string]: unknown;
}

export interface ChatOptions {
  /** End with the words that open the assistant's answer. Default true. */
  addGenerationPrompt?: boolean;
  /** Tools the model may call, as the template expects them. */
  tools?: unknown[];
  /** Any other variable of the template. */
  [variable: string]: unknown;
}

/** Renders messages to the prompt a model was trained on. The template is Jinja, parsed on first use. */
export class ChatTemplate {
  private template: Template | undefined;

  /** `names`: the special tokens that a template may ask for, as `bos_token` and the like. */
  constructor(readonly source: string, private readonly names: Readonly<Record<string, string | string[]>>) {}

  /** Throws INVALID_TOKENIZER when the template is malformed, INVALID_ARGUMENT when it refuses the messages. */
  render(messages: ChatMessage[], options: ChatOptions = {}): string {
    checkMessages(messages);
    const { addGenerationPrompt = true, tools, ...variables } = options;
    const template = this.parse();
    try {
      return template.render({
        // A template that concatenates a token the model does not have expects an empty text.
        bos_token: '',
        eos_token: '',
        ...this.names,
        ...variables,
        messages,
        tools: tools ?? null,
        add_generation_prompt: addGenerationPrompt,
      });
    } catch (cause) {
      throw new CqilError('INVALID_ARGUMENT', `The chat template refuses these messages: ${(cause as Error).message}`, { cause });
    }
  }

  private parse(): Template {
    // Loaded with the first template: most who load a model want its first token soon, and not all of them chat.
    const jinja = require('@huggingface/jinja') as typeof import('@huggingface/jinja');
    try {
      return (this.template ??= new jinja.Template(this.source));
    } catch (cause) {
      throw invalidTokenizer(`The chat template cannot be parsed: ${(cause as Error).message}`, cause);
    }
  }
}

function checkMessages(messages: unknown): void {
  if (!Array.isArray(messages) || messages.length === 0) {
    throw new CqilError('INVALID_ARGUMENT', 'A chat needs at least one message; expected an array of { role, content }.');
  }
  for (const [index, message] of messages.entries()) {
    if (!isObject(message) || typeof message.role !== 'string') {
      throw new CqilError('INVALID_ARGUMENT', `Message ${index} has no role; expected { role, content }.`);
    }
  }
}

/** The template of a tokenizer_config.json: a string, or the one named "default" of several. */
export function chatTemplateOf(config: Record<string, unknown>): string | undefined {
  const { chat_template: template } = config;
  if (typeof template === 'string') return template;
  if (!Array.isArray(template)) return undefined;
  const named = template.filter(isObject);
  const chosen = named.find((entry) => entry.name === 'default') ?? named[0];
  return typeof chosen?.template === 'string' ? chosen.template : undefined;
}
