import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { loadTokenizer, type ChatMessage, type ChatOptions } from '../lib/tokenizer/index.js';
import { expectCode } from './support/expect_code.js';
import { describeShared, sharedData } from './support/shared_data.js';
import { TINY_JSON, tinyTokenizer } from './support/tiny_tokenizer.js';
import { folderSource, readJson } from './support/tokenizer_sources.js';
import { vocabularyAsGguf } from './support/vocabularies.js';

interface Case {
  name: string;
  template_str: string;
  expected_output: string;
  expected_output_jinja: string;
  bos_token: string;
  eos_token: string;
}

const CHATML =
  '{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}';
const HELLO: ChatMessage[] = [{ role: 'user', content: 'Hello' }];

/** The tiny tokenizer with a chat template and the texts of its BOS and EOS. */
function withTemplate(chat_template: unknown, config: object = {}) {
  return tinyTokenizer({}, { chat_template, ...config });
}

/**
 * The conversation with its system message in front of the first user's, as llama.cpp hands it to templates that have
 * no system role.
 */
function withoutSystemRole([system, user, ...rest]: ChatMessage[]): ChatMessage[] {
  return [{ role: 'user', content: `${system!.content}\n${user!.content}` }, ...rest];
}

// Cases whose expected output Jinja itself does not give: what llama.cpp does to the conversation before, or to the
// text after.
const DIFFERENT: Record<
  string,
  (
    render: (options?: ChatOptions) => string,
    renderMerged: () => string,
    entry: Case,
  ) => [actual: string, expected: string]
> = {
  'mistralai/Mistral-7B-Instruct-v0.2 (NOTE: Old pre-v1 without a system prompt)': (_render, renderMerged, entry) => [
    renderMerged(),
    entry.bos_token + expectedOf(entry),
  ],
  'mlabonne/AlphaMonarch-7B': (render, _renderMerged, entry) => [render(), entry.bos_token + expectedOf(entry)],
  'google/gemma-7b-it': (_render, renderMerged, entry) => [renderMerged(), expectedOf(entry)],
  'OrionStarAI/Orion-14B-Chat': (_render, renderMerged, entry) => [renderMerged(), expectedOf(entry) + entry.eos_token],
  'Phi-3-mini': (_render, renderMerged, entry) => [renderMerged(), expectedOf(entry)],
  'Phi-3-medium': (_render, renderMerged, entry) => [renderMerged(), expectedOf(entry)],
  // The template writes a space after each newline; llama.cpp's Jinja engine of that time dropped it, its own formatter
  // did not.
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
    const { conversation, cases } = readJson('chat-templates', 'llamacpp-cases', 'cases.json') as {
      conversation: ChatMessage[];
      cases: Case[];
    };
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
    const variables: ChatOptions = { datetime: '1 Jan 2030', functions: '[]' };
    for (const file of readdirSync(folder).filter((name) => name.endsWith('.jinja'))) {
      const tokenizer = await withTemplate(readFileSync(`${folder}/${file}`, 'utf8'), {
        bos_token: '<s>',
        eos_token: '</s>',
      });
      const read = Object.entries(variables).filter(([name]) => tokenizer.chatVariables.includes(name));
      expect(tokenizer.applyChatTemplate(HELLO, { tools: [], ...Object.fromEntries(read) }), file).toContain('Hello');
    }
  });

  it('take tools and further variables', async () => {
    const template = readFileSync(
      sharedData('chat-templates', 'llamacpp-templates', 'meta-llama-Llama-3.1-8B-Instruct.jinja'),
      'utf8',
    );
    const tools = [{ type: 'function', function: { name: 'weather', parameters: {} } }];
    const rendered = (await withTemplate(template, { bos_token: '<|begin_of_text|>' })).applyChatTemplate(HELLO, {
      tools,
      date_string: '1 Jan 2030',
    });
    expect(rendered).toMatch(/^<\|begin_of_text\|>[^]*1 Jan 2030[^]*"weather"/);
  });

  it('give a prompt that is encoded with one BOS', async () => {
    const source = folderSource('tokenizers', 'llama-1-2');
    if (source.kind !== 'huggingface') throw new Error('not a Hugging Face tokenizer');
    const tokenizer = await loadTokenizer({
      ...source,
      chatTemplate: '{{ bos_token }}[INST] {{ messages[0].content }} [/INST]',
    });
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
    expect(tokenizer.applyChatTemplate(HELLO, { addGenerationPrompt: false })).toBe(
      '<|im_start|>user\nHello<|im_end|>\n',
    );
  });

  it("takes a folder's own template file before the configuration's, and the default of several", async () => {
    const source = { kind: 'huggingface', json: TINY_JSON, generationConfig: undefined } as const;
    const several = [
      { name: 'tool_use', template: 'tools' },
      { name: 'default', template: 'plain' },
    ];
    expect((await loadTokenizer({ ...source, config: { chat_template: several } })).applyChatTemplate(HELLO)).toBe(
      'plain',
    );
    expect(
      (await loadTokenizer({ ...source, config: { chat_template: several }, chatTemplate: 'file' })).applyChatTemplate(
        HELLO,
      ),
    ).toBe('file');
  });

  it('takes the template for tools where there is one, of a folder and of a GGUF file', async () => {
    const [plain, withTools] = ['D:{{ messages[0].content }}', 'T:{{ tools | tojson }}'];
    const folder = await withTemplate([
      { name: 'tool_use', template: withTools },
      { name: 'default', template: plain },
    ]);
    const source = vocabularyAsGguf('gpt-2');
    const gguf = await loadTokenizer({
      kind: 'gguf',
      metadata: new Map([
        ...source.metadata,
        ['tokenizer.chat_template', plain],
        ['tokenizer.chat_template.tool_use', withTools],
      ]),
    });
    const files = await loadTokenizer({
      kind: 'huggingface',
      json: TINY_JSON,
      config: {},
      generationConfig: {},
      chatTemplate: plain,
      furtherChatTemplates: { tool_use: withTools },
    });
    for (const tokenizer of [folder, gguf, files]) {
      expect(tokenizer.chatTemplate).toBe(plain);
      expect(tokenizer.applyChatTemplate(HELLO)).toBe('D:Hello');
      expect(tokenizer.applyChatTemplate(HELLO, { tools: [] })).toBe('D:Hello');
      expect(tokenizer.applyChatTemplate(HELLO, { tools: [{ name: 'now' }] })).toBe('T:[{"name": "now"}]');
    }
  });

  it('says what is wrong', async () => {
    const [none, broken, refusing, tokenizer] = await Promise.all([
      tinyTokenizer(),
      withTemplate('{% for %}'),
      withTemplate("{{ raise_exception('roles must alternate') }}"),
      withTemplate(CHATML),
    ]);
    expectCode('INVALID_ARGUMENT', () => none.applyChatTemplate(HELLO), /no chat template/);
    expectCode('INVALID_TOKENIZER', () => broken.applyChatTemplate(HELLO), /cannot be parsed/);
    expectCode('INVALID_ARGUMENT', () => refusing.applyChatTemplate(HELLO), /roles must alternate/);
    expectCode('INVALID_ARGUMENT', () => tokenizer.applyChatTemplate([]), /at least one message/);
    expectCode(
      'INVALID_ARGUMENT',
      () => tokenizer.applyChatTemplate([{ content: 'Hello' } as never]),
      /Message 0 has no role/,
    );
  });
});

describe('options of a chat', () => {
  const wrong: Array<[options: unknown, message: RegExp]> = [
    [
      { addGenerationPromt: false },
      /reads no variable "addGenerationPromt".*expected addGenerationPrompt, continueFinalMessage, tools\.$/,
    ],
    [{ enable_thinking: false }, /reads no variable "enable_thinking"/],
    [{ addGenerationPrompt: 1 }, /addGenerationPrompt is 1; expected true or false/],
    [{ addGenerationPrompt: false, add_generation_prompt: false }, /both spellings/],
    [{ addGenerationPrompt: true, continue_final_message: true }, /expected one/],
    [{ tools: {} }, /tools is {}; expected an array/],
    [{ tools: [{ name: 'now' }] }, /does not read tools/],
    [3, /options of a chat are 3/],
  ];
  it.each(wrong)('refuses %j', async (options, message) => {
    const tokenizer = await withTemplate(CHATML);
    expectCode('INVALID_ARGUMENT', () => tokenizer.applyChatTemplate(HELLO, options as ChatOptions), message);
    expectCode('INVALID_ARGUMENT', () => tokenizer.encodeChat(HELLO, options as ChatOptions), message);
  });

  it('come in either spelling, undefined is none', async () => {
    const tokenizer = await withTemplate(CHATML);
    const closed = '<|im_start|>user\nHello<|im_end|>\n';
    expect(tokenizer.applyChatTemplate(HELLO, { add_generation_prompt: false, enable_thinking: undefined })).toBe(
      closed,
    );
    expect(tokenizer.applyChatTemplate(HELLO, { addGenerationPrompt: undefined, tools: null })).toBe(
      `${closed}<|im_start|>assistant\n`,
    );
    for (const options of [
      { continueFinalMessage: true },
      { continue_final_message: true, add_generation_prompt: false },
    ]) {
      expect(tokenizer.applyChatTemplate(HELLO, options)).toBe('<|im_start|>user\nHello');
    }
  });

  it('are what the template reads', async () => {
    const template =
      '{% set known = 1 %}{% macro show(tools) %}{{ tools }}{{ inner }}{% endmacro %}{% for m in messages if m.role == wanted %}{{ m.content|default(fallback) }}{% set local = m %}' +
      '{% endfor %}{{ known }}{{ local }}{{ show(documents) }}{% if date is not defined %}{% set date = strftime_now("%d") %}{% endif %}{{ date }}{{ ns.x }}{{ f(key=1) }}' +
      '{% if ns %}{% set both = 1 %}{% else %}{% set both = 2 %}{% endif %}{{ both }}';
    const tokenizer = await withTemplate(template);
    expect(tokenizer.chatVariables).toEqual([
      'date',
      'documents',
      'f',
      'fallback',
      'inner',
      'local',
      'messages',
      'ns',
      'wanted',
    ]);
    expect((await withTemplate(CHATML)).chatVariables).toEqual(['add_generation_prompt', 'messages']);
    expect((await tinyTokenizer()).chatVariables).toEqual([]);
  });
});

describe('a partial answer', () => {
  const partial: ChatMessage[] = [...HELLO, { role: 'assistant', content: 'one two ' }];
  const render = async (template: string, messages = partial): Promise<string> =>
    (await withTemplate(template)).applyChatTemplate(messages, { continueFinalMessage: true });

  it('is continued right after its text', async () => {
    expect(await render(CHATML)).toBe('<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\none two ');
    expect(await render('{% for m in messages %}[{{ m.content | trim | upper }}]{% endfor %}')).toBe('[HELLO][ONE TWO');
    expect(await render('{% for m in messages %}[{{ m.content }}]{{ m.content }}{% endfor %}')).toBe(
      '[Hello]Hello[one two ]one two ',
    );
    expect(await render('{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %};{% endfor %}')).toBe(
      'Hello;one two ',
    );
  });

  it('is refused where the template does not show it', async () => {
    await expect(render('{{ messages[0].content }}')).rejects.toThrow(/does not show the final message/);
    await expect(render('{% for m in messages %}{{ m.content | length }}{% endfor %}')).rejects.toThrow(
      /does not show the final message/,
    );
    await expect(
      render('{{ messages | tojson }}', [...HELLO, { role: 'tool', content: { degrees: 3 } }]),
    ).rejects.toThrow(/final message/);
  });
});

describe('forms of messages', () => {
  const PLUS = "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '</>' }}{% endfor %}";
  const call = { type: 'function', function: { name: 'f', arguments: '{"a": 1}' } };
  const render = async (template: string, ...messages: ChatMessage[]): Promise<string> =>
    (await withTemplate(template)).applyChatTemplate(messages);

  it('join parts of text where the template knows none', async () => {
    const parts = {
      role: 'user',
      content: [
        { type: 'text', text: 'a' },
        { type: 'text', text: 'b' },
      ],
    };
    expect(await render(PLUS, parts)).toBe('<user>a\nb</>');
    expect(await render('{{ messages[0].content }}', parts)).toBe('a\nb');
    expect(
      await render(
        '{% if messages[0].content is string %}{{ messages[0].content }}{% else %}{% for p in messages[0].content %}{{ p.text }}{% endfor %}{% endif %}',
        parts,
      ),
    ).toBe('ab');
    expect(
      await render('{% for p in messages[0].content %}{{ p.text }}{% endfor %}', { role: 'user', content: 'x' }),
    ).toBe('x');
  });

  it('stay a text where a template refuses it', async () => {
    await expect(
      render("{% if 'bad' in messages[0].content %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}", {
        role: 'user',
        content: 'bad',
      }),
    ).rejects.toThrow(/: no\.$/);
  });

  it('take none for content beside tool calls', async () => {
    for (const content of [null, undefined]) {
      const message = { role: 'assistant', content, tool_calls: [call] };
      expect(await render(PLUS, message)).toBe('<assistant></>');
      expect(await render("{{ '<' ~ messages[0].content ~ '>' }}", message)).toBe('<>');
    }
    expect(
      await render('{% if messages[0].content is none %}call{% endif %}', {
        role: 'assistant',
        content: null,
        tool_calls: [call],
      }),
    ).toBe('call');
  });

  it('have arguments of calls as the template wants them', async () => {
    const message = {
      role: 'assistant',
      content: '',
      tool_calls: [call, { function: { name: 'g', arguments: 'not JSON' } }],
    };
    expect(
      await render('{% for t in messages[0].tool_calls %}{{ t.function.arguments | tojson }}{% endfor %}', message),
    ).toBe('{"a": 1}"not JSON"');
    expect(
      await render("{% for t in messages[0].tool_calls %}{{ '[' + t.function.arguments + ']' }}{% endfor %}", message),
    ).toBe('[{"a": 1}][not JSON]');
  });

  it('have data from tools', async () => {
    expect(await render('{{ messages[0].content | tojson }}', { role: 'tool', content: { degrees: 3 } })).toBe(
      '{"degrees": 3}',
    );
  });

  it('are refused where nobody could mean them', async () => {
    const tokenizer = await withTemplate(PLUS);
    const refused: Array<[content: unknown, message: RegExp]> = [
      [undefined, /^Message 0 has no content/],
      [null, /^Message 0 has no content/],
      [5, /^Message 0 has the content 5/],
      [{ a: 1 }, /^Message 0 has the content/],
      [['a'], /^Message 0 has the content/],
      [[{ type: 'image', url: 'x' }], /^Message 0 has the part .*expected { type: "text", text }/],
    ];
    for (const [content, message] of refused)
      expectCode(
        'INVALID_ARGUMENT',
        () => tokenizer.applyChatTemplate([{ role: 'user', content } as ChatMessage]),
        message,
      );
  });
});
