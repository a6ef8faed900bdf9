import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { loadTokenizer, type ChatMessage, type ChatOptions } from '../lib/tokenizer/index.js';
import { expectCode } from './support/expect_code.js';
import { describeShared, sharedData } from './support/shared_data.js';
import { TINY_JSON, tinyTokenizer } from './support/tiny_tokenizer.js';
import { folderSource, readJson } from './support/tokenizer_sources.js';

interface Case {
  name: string;
  template_str: string;
  expected_output: string;
  expected_output_jinja: string;
  bos_token: string;
  eos_token: string;
}

const CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
const HELLO: ChatMessage[] = [{ role: 'user', content: 'Hello' }];

/** The tiny tokenizer with a chat template and the texts of its BOS and EOS. */
function withTemplate(chat_template: unknown, config: object = {}) {
  return tinyTokenizer({}, { chat_template, ...config });
}

/** The conversation with its system message in front of the first user's, as llama.cpp hands it to templates that have no system role. */
function withoutSystemRole([system, user, ...rest]: ChatMessage[]): ChatMessage[] {
  return [{ role: 'user', content: `${system!.content}\n${user!.content}` }, ...rest];
}

// Cases whose expected output Jinja itself does not give: what llama.cpp does to the conversation before, or to the text after.
const DIFFERENT: Record<string, (render: (options?: ChatOptions) => string, renderMerged: () => string, entry: Case) => [actual: string, expected: string]> = {
  'mistralai/Mistral-7B-Instruct-v0.2 (NOTE: Old pre-v1 without a system prompt)': (_render, renderMerged, entry) => [renderMerged(), entry.bos_token + expectedOf(entry)],
  'mlabonne/AlphaMonarch-7B': (render, _renderMerged, entry) => [render(), entry.bos_token + expectedOf(entry)],
  'google/gemma-7b-it': (_render, renderMerged, entry) => [renderMerged(), expectedOf(entry)],
  'OrionStarAI/Orion-14B-Chat': (_render, renderMerged, entry) => [renderMerged(), expectedOf(entry) + entry.eos_token],
  'Phi-3-mini': (_render, renderMerged, entry) => [renderMerged(), expectedOf(entry)],
  'Phi-3-medium': (_render, renderMerged, entry) => [renderMerged(), expectedOf(entry)],
  // The template writes a space after each newline; llama.cpp's Jinja engine of that time dropped it, its own formatter did not.
  ChatGLM3: (render, _renderMerged, entry) => [render(), entry.expected_output],
  // The template reads tokens that the case leaves out.
  'ai-sage/GigaChat-20B-A3B-instruct': (render, _renderMerged, entry) => [
    render({ bos_token: '<s>', additional_special_tokens: ['<|role_sep|>', '<|message_sep|>', '[', ']'] }),
    expectedOf(entry),
  ],
};

function expectedOf(entry: Case): string {
  return entry.expected_output_jinja || entry.expected_output;
}

describeShared('chat templates rendered by llama.cpp', () => {
  it('come out the same, all 30', async () => {
    const { conversation, cases } = readJson('chat-templates', 'llamacpp-cases', 'cases.json') as { conversation: ChatMessage[]; cases: Case[] };
    expect([cases.length, Object.keys(DIFFERENT).length]).toEqual([30, 8]);
    for (const entry of cases) {
      const tokenizer = await withTemplate(entry.template_str, entry);
      const render = (options?: ChatOptions): string => tokenizer.applyChatTemplate(conversation, options);
      const renderMerged = (): string => tokenizer.applyChatTemplate(withoutSystemRole(conversation));
      const [actual, expected] = DIFFERENT[entry.name]?.(render, renderMerged, entry) ?? [render(), expectedOf(entry)];
      expect(actual, entry.name).toBe(expected);
    }
  });
});

describeShared('chat templates of real models', () => {
  it('render a conversation', async () => {
    const folder = sharedData('chat-templates', 'llamacpp-templates');
    // Firefunction's needs to know the time and its functions.
    const variables = { tools: [], datetime: '1 Jan 2030', functions: '[]' };
    for (const file of readdirSync(folder).filter((name) => name.endsWith('.jinja'))) {
      const tokenizer = await withTemplate(readFileSync(`${folder}/${file}`, 'utf8'), { bos_token: '<s>', eos_token: '</s>' });
      expect(tokenizer.applyChatTemplate(HELLO, variables), file).toContain('Hello');
    }
  });

  it('take tools and further variables', async () => {
    const template = readFileSync(sharedData('chat-templates', 'llamacpp-templates', 'meta-llama-Llama-3.1-8B-Instruct.jinja'), 'utf8');
    const tools = [{ type: 'function', function: { name: 'weather', parameters: {} } }];
    const rendered = (await withTemplate(template, { bos_token: '<|begin_of_text|>' })).applyChatTemplate(HELLO, { tools, date_string: '1 Jan 2030' });
    expect(rendered).toMatch(/^<\|begin_of_text\|>[^]*1 Jan 2030[^]*"weather"/);
  });

  it('give a prompt that is encoded with one BOS', async () => {
    const source = folderSource('tokenizers', 'llama-1-2');
    if (source.kind !== 'huggingface') throw new Error('not a Hugging Face tokenizer');
    const tokenizer = await loadTokenizer({ ...source, chatTemplate: '{{ bos_token }}[INST] {{ messages[0].content }} [/INST]' });
    const prompt = tokenizer.applyChatTemplate(HELLO);
    expect(prompt).toBe('<s>[INST] Hello [/INST]');
    const ids = tokenizer.encode(prompt, { addSpecialTokens: false });
    expect(ids.filter((id) => id === tokenizer.bosTokenId)).toHaveLength(1);
    expect(tokenizer.encode(prompt)).toEqual(ids);
  });
});

describe('applyChatTemplate', () => {
  it('opens the answer unless told not to', async () => {
    const tokenizer = await withTemplate(CHATML);
    expect(tokenizer.chatTemplate).toBe(CHATML);
    expect(tokenizer.applyChatTemplate(HELLO)).toBe('<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n');
    expect(tokenizer.applyChatTemplate(HELLO, { addGenerationPrompt: false })).toBe('<|im_start|>user\nHello<|im_end|>\n');
  });

  it("takes a folder's own template file before the configuration's, and the default of several", async () => {
    const source = { kind: 'huggingface', json: TINY_JSON, generationConfig: undefined } as const;
    const several = [{ name: 'tool_use', template: 'tools' }, { name: 'default', template: 'plain' }];
    expect((await loadTokenizer({ ...source, config: { chat_template: several } })).applyChatTemplate(HELLO)).toBe('plain');
    expect((await loadTokenizer({ ...source, config: { chat_template: several }, chatTemplate: 'file' })).applyChatTemplate(HELLO)).toBe('file');
  });

  it('says what is wrong', async () => {
    const [none, broken, refusing, tokenizer] = await Promise.all([tinyTokenizer(), withTemplate('{% for %}'), withTemplate("{{ raise_exception('roles must alternate') }}"), withTemplate(CHATML)]);
    expectCode('INVALID_ARGUMENT', () => none.applyChatTemplate(HELLO), /no chat template/);
    expectCode('INVALID_TOKENIZER', () => broken.applyChatTemplate(HELLO), /cannot be parsed/);
    expectCode('INVALID_ARGUMENT', () => refusing.applyChatTemplate(HELLO), /roles must alternate/);
    expectCode('INVALID_ARGUMENT', () => tokenizer.applyChatTemplate([]), /at least one message/);
    expectCode('INVALID_ARGUMENT', () => tokenizer.applyChatTemplate([{ content: 'Hello' } as never]), /Message 0 has no role/);
  });
});
