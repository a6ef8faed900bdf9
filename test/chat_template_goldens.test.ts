import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ChatMessage, ChatOptions } from '../lib/tokenizer/index.js';
import { expectCode } from './support/expect_code.js';
import { tinyTokenizer } from './support/tiny_tokenizer.js';

interface Case {
  name: string;
  template: string[];
  variables: Record<string, string>;
  tools?: unknown[];
  rendered: Record<string, { closed: string; open: string } | { refused: string }>;
}

const { conversations, templates } = JSON.parse(
  readFileSync(path.join(__dirname, 'fixtures/chat_templates.json'), 'utf8'),
) as {
  conversations: Record<string, ChatMessage[]>;
  templates: Case[];
};

describe.each(templates)("the transformers library's rendering: $name", ({ template, variables, tools, rendered }) => {
  it.each(Object.entries(rendered))('%s', async (name, expected) => {
    const { bos_token, eos_token, ...others } = variables;
    const tokenizer = await tinyTokenizer({}, { chat_template: template.join('\n'), bos_token, eos_token });
    const render = (addGenerationPrompt: boolean): string =>
      tokenizer.applyChatTemplate(conversations[name]!, { ...others, tools, addGenerationPrompt } as ChatOptions);
    if ('refused' in expected) expectCode('INVALID_ARGUMENT', () => render(true), new RegExp(expected.refused));
    else expect([render(false), render(true)]).toEqual([expected.closed, expected.open]);
  });
});
