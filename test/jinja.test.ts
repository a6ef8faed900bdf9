import { describe, expect, it } from 'vitest';
import { CqilError } from '../lib/errors.js';
import { Budget, sizeOf } from '../lib/tokenizer/jinja/budget.js';
import { runTemplate } from '../lib/tokenizer/jinja/interpreter.js';
import { parseTemplate } from '../lib/tokenizer/jinja/source.js';
import { strftime } from '../lib/tokenizer/jinja/strftime.js';
import { describeShared } from './support/shared_data.js';
import { expectCode, expectRejection } from './support/expect_code.js';
import { tinyTokenizer } from './support/tiny_tokenizer.js';
import { readJson } from './support/tokenizer_sources.js';

function render(template: string, variables: Record<string, unknown> = {}): string {
  return runTemplate(parseTemplate(template), variables, new Budget(sizeOf(variables)));
}

// What Jinja 3.1.6 renders in its sandbox, with trim_blocks, lstrip_blocks and loop controls, as Hugging Face
// configures it.
const JINJA: Array<[template: string, rendered: string]> = [
  ['{% for x in [1,2,3] %}{{ x }}{% if x == 2 %}{% break %}{% endif %}{% endfor %}', '12'],
  ['{% for x in [1,2,3] %}{{ x }}{% if x == 2 %}{% continue %}{% endif %}.{% endfor %}', '1.23.'],
  ['{% for x in [1,2,3] %}{% if loop.first %}{% continue %}{% endif %}{{ x }}{% break %}{% endfor %}', '2'],
  [
    '{% for x in [1,2,3] %}{{x}}{% for y in [1,2] %}{{y}}{% break %}{% endfor %}{% if x==2 %}{% break %}{% endif %};{% endfor %}',
    '11;21',
  ],
  ['{% for x in [1,2,3] %}{% if x == 2 %}a{% continue %}{% endif %}{{ x }}{% endfor %}', '1a3'],
  ['{% for x in [1,2] %}{% continue %}{% else %}none{% endfor %}', 'none'],
  ['{% for x in u %}{{ x }}{% else %}e{% endfor %}', 'e'],
  ['{% for x in [1,2] %}{% if x==1 %}{% set a = 1 %}{% endif %}[{{ a }}]{% endfor %}', '[1][]'],
  ['{% set a=1 %}{% for x in [1,2] %}{% set a = a + x %}{{ a }},{% endfor %}{{ a }}', '2,3,1'],
  ['{% for x in [1,2] if x>1 %}{{loop.index}}{{x}}{% endfor %}', '12'],
  ["{{ 'a' ~ 1 ~ none ~ u }}", 'a1None'],
  ["{{ 'ab' * 2 }}", 'abab'],
  ['{% raw %}\n{{ x }}{% endraw %}\nz', '\n{{ x }}z'],
  ['{% set x %}{% raw -%}  {{ a }} {%- endraw %}{% endset %}[{{x}}]', '[{{ a }}]'],
  ['a\n  {%- raw %} {% if %} {# c #} {% endraw -%}  b', 'a {% if %} {# c #} b'],
  ['a\n  {% raw %} x\n  {% endraw %}\n y', 'a\n x\n y'],
  ['{% raw %}a{% endraw -%}  b{% raw %}"\\{% endraw %}', 'ab"\\'],
  ['{{ [[1]] == [[1]] }}{{ [1] == [2] }}{{ [1] != [1] }}{{ [1, 2] == [1] }}', 'truefalsefalsefalse'],
  [
    "{{ {'a': [1], 'b': none} == {'b': none, 'a': [1]} }}{{ {'a': 1} == {'b': 1} }}{{ {'a': 1} == {'a': 1, 'b': 2} }}",
    'truefalsefalse',
  ],
  [
    "{{ 1 == true }}{{ 0 == false }}{{ 1 == 1.0 }}{{ '1' == 1 }}{{ none == u }}{{ none == none }}{{ [1, 2] == (1, 2) }}",
    'truetruetruefalsefalsetruefalse',
  ],
  [
    "{{ [1] in [[1]] }}{{ 1.0 in [1] }}{{ none in [none] }}{{ u in ['a'] }}{{ '1' not in [1] }}",
    'truetruetruefalsetrue',
  ],
  ['b {% raw %}a{% endraw %} c', 'b a c'],
  [
    "[{{ ' \\n a \\n'.strip('\\n') }}][{{ '\\n a'.lstrip('\\n') }}][{{ 'a \\n\\n'.rstrip('\\n') }}]",
    '[ \n a ][ a][a ]',
  ],
  [
    "[{{ 'abcba'.strip('ab') }}][{{ '😀a😀'.strip('😀') }}][{{ 'aba' | trim('a') }}][{{ ' a ' | trim }}]",
    '[c][a][b][a]',
  ],
  ["[{{ ' a '.strip(none) }}][{{ '  '.rstrip() }}][{{ 'aa'.strip('a') }}]", '[a][][]'],
];

// What Python 3.11's str.strip, lstrip and rstrip leave of a character, an a and the character.
const STRIPPED: Array<[character: string, lengths: string]> = [
  ...Array.from('\t\v\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u3000', (c): [string, string] => [c, '1221']),
  ...Array.from('\ufeff\u180e\u200b', (c): [string, string] => [c, '3333']),
];

describe('templates', () => {
  it.each(STRIPPED)('know the whitespace of Python: %j', (character, lengths) => {
    const template = '{{ x.strip()|length }}{{ x.lstrip()|length }}{{ x.rstrip()|length }}{{ x|trim|length }}';
    expect(render(template, { x: `${character}a${character}` })).toBe(lengths);
  });

  it.each(JINJA)('render as in Jinja: %s', (template, rendered) => {
    expect(render(template)).toBe(rendered);
  });

  it('join no list to a text', () => {
    expect(() => render("{{ 'a' + [1] }}")).toThrow(/a text and a list cannot be added/);
    expect(() => render("{% set a = {'a': 1} %}{{ a + 'a' }}")).toThrow(/a text and an object cannot be added/);
  });

  it('end in one error where they are cut short', () => {
    for (const template of ['{% for x in y %}', '{% if', '{{ a', '{% macro f() %}', '{{ [1, ', '{% raw %}', '{# a'])
      expect(() => parseTemplate(template), template).toThrow(/^[^\n]+$/);
  });

  it('write dates as Python does', () => {
    const date = new Date(2024, 6, 4, 15, 4, 5);
    expect(strftime(date, '%Y-%m-%d %H:%M:%S %d %b %Y, %A %-d %B %I %p %j %y %a 100%% %Q')).toBe(
      '2024-07-04 15:04:05 04 Jul 2024, Thursday 4 July 03 PM 186 24 Thu 100% %Q',
    );
  });
});

// The library's cases whose values differ in Python, where true is 1 and false is 0, also in a list.
const PYTHON: Record<string, string> = {
  MEMBERSHIP: '|true|true|true|true|true|false|',
  MEMBERSHIP_NEGATION_1: '|false|false|false|false|false|true|',
  MEMBERSHIP_NEGATION_2: '|false|false|false|false|false|true|',
};

describeShared("the library's own cases", () => {
  it('come out the same, except four that need functions of JavaScript', () => {
    const cases = readJson('chat-templates', 'huggingfacejs-syntax', 'syntax-cases.json') as Record<
      string,
      { template: string; context: Record<string, unknown>; context_has_functions: boolean; expected: string }
    >;
    const plain = Object.entries(cases).filter(([, { context_has_functions: hasFunctions }]) => !hasFunctions);
    expect([Object.keys(cases).length, plain.length]).toEqual([161, 157]);
    for (const [name, { template, context, expected }] of plain)
      expect(render(template, context), name).toBe(PYTHON[name] ?? expected);
  });
});

const grown = (start: string, step: string, end: string): string =>
  `{% set ns = namespace(x=${start}) %}{% for i in range(100) %}{% set ns.x = ${step} %}{% endfor %}${end}`;
const repeated = (setup: string, body: string): string =>
  `{% set a = ${setup} %}{% for i in range(100000) %}${body}{% endfor %}`;

// Each would run for minutes or hours, or end the process, without limits.
const HOSTILE: Record<string, string> = {
  'a long range': '{{ range(120000000)|length }}',
  'nested loops': '{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}',
  'a text that doubles': grown("'a'", 'ns.x ~ ns.x', '{{ ns.x|length }}'),
  'a sum that doubles': grown("'a'", 'ns.x + ns.x', '{{ ns.x|length }}'),
  'a list that doubles': grown('[1]', 'ns.x + ns.x', '{{ ns.x|length }}'),
  'a list of itself twice, as JSON': grown('[1]', '[ns.x, ns.x]', '{{ ns.x|tojson }}'),
  'a list of itself twice, printed': grown('[1]', '[ns.x, ns.x]', '{{ ns.x }}'),
  'a list of itself twice, joined': grown('[1]', '[ns.x, ns.x]', "{{ ns.x|join(',') }}"),
  'a list of itself twice, in a text': grown('[1]', '[ns.x, ns.x]', "{{ ns.x ~ 'a' }}"),
  'an endless macro': '{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}{{ f(f) }}',
  'a macro that calls itself twice':
    '{% macro f(n) %}{% if n > 0 %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}',
  'a macro defined again and again': repeated('1', `{% macro f() %}${'x{{ a }}'.repeat(10_000)}{% endmacro %}`),
  'a text times a number': "{{ ('x' * 1000000000)|length }}",
  'a replacement': "{% set a = 'x' * 1000000 %}{{ a|replace('x', a)|length }}",
  'a replacement of nothing': "{% set a = 'x' * 1000000 %}{{ a.replace('', a)|length }}",
  'a join': "{% set a = 'x' * 1000000 %}{{ range(100000)|join(a)|length }}",
  'an indented text': "{{ ('a\\n' * 100000)|indent(100000000)|length }}",
  'indented JSON': '{{ range(10)|tojson(indent=100000000)|length }}',
  'JSON with long separators': "{% set a = 'x' * 1000000 %}{{ range(10000)|tojson(separators=(a, a))|length }}",
  'a split': "{% set a = 'x' * 2000000 %}{{ a.split('x')|length }}",
  'a search that almost agrees everywhere':
    "{% set a = 'a' * 400000 %}{% set b = 'a' * 100000 ~ 'b' ~ 'a' * 100000 %}{{ b in a }}",
  dates: repeated('1', "{% set x = strftime_now('%d %B %Y' * 10) %}"),
  'spaces to strip': repeated("' ' * 1000000", '{% set b = a.strip() %}'),
  slices: repeated("'x' * 1000000", '{% set b = a[1:] %}'),
  sorting: repeated('range(100000)', '{% set b = a|sort %}'),
  'texts that are kept': grown('none', "[ns.x, 'x' * 1000000]", ''),
  'a comparison of lists that double':
    '{% set a = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set a.x = [a.x, a.x] %}{% set a.y = [a.y, a.y] %}{% endfor %}{{ a.x == a.y }}',
  'a sum of many': `{{ ${'1 + '.repeat(50_000)}1 }}`,
  'a chain of filters': `{{ 'a'${'|trim'.repeat(20_000)} }}`,
};
const UNREADABLE: Record<string, string> = {
  'many parentheses': `{{ ${'('.repeat(50_000)}1${')'.repeat(50_000)} }}`,
  'many negations': `{{ ${'not '.repeat(50_000)}1 }}`,
  'many branches': `{% if a %}${'{% elif a %}'.repeat(20_000)}{% endif %}`,
  'many spaces': ' '.repeat(200_000),
  'many openings of raw text': '{% raw %}'.repeat(20_000),
  'a long text': 'x'.repeat(1 << 20),
  'many operators': `{{ 1${'+1'.repeat(4_200)} }}`,
  'many blocks': '{% set a=1 %}'.repeat(1_500),
  'many attributes': `{{ a${'.a'.repeat(2_000)} }}`,
};

describe('hostile templates', () => {
  it('say in words of ours that they nest too deep', async () => {
    await expectRejection(
      'INVALID_TOKENIZER',
      (async () => (await tinyTokenizer({}, { chat_template: `{{ a${'|a'.repeat(3_900)} }}` })).chatVariables)(),
      /cannot be parsed: it nests too deep\.$/,
    );
  });

  it.each(Object.entries({ ...HOSTILE, ...UNREADABLE }))('end in an error: %s', async (_name, chat_template) => {
    const tokenizer = await tinyTokenizer({}, { chat_template });
    for (const use of [
      () => tokenizer.applyChatTemplate([{ role: 'user', content: 'a' }]),
      () => tokenizer.encodeChat([{ role: 'user', content: 'a' }]),
    ]) {
      try {
        use();
        expect.fail('it rendered');
      } catch (error) {
        expect(error).toBeInstanceOf(CqilError);
        expect(error).toMatchObject({
          code: 'INVALID_TOKENIZER',
          message: expect.stringMatching(
            /^The chat template (goes beyond (its limits|what can be computed)|cannot be parsed): /,
          ),
        });
        expect((error as CqilError).message.length).toBeLessThan(400);
      }
    }
  });

  it.each(['raise_exception', 'strftime_now'])('end in an error where %s is given what is no text', async (name) => {
    // Sixty levels would be 2 ** 60 items of text.
    const chat_template = `{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ${name}(ns.s) }}`;
    const tokenizer = await tinyTokenizer({}, { chat_template });
    expectCode('INVALID_ARGUMENT', () => tokenizer.applyChatTemplate([{ role: 'user', content: 'a' }]), /is no text/);
  });

  it('has limits that grow with the messages', async () => {
    const tokenizer = await tinyTokenizer(
      {},
      { chat_template: "{% for m in messages %}{{ m.role ~ ': ' ~ m.content | trim ~ '\\n' }}{% endfor %}" },
    );
    const messages = Array.from({ length: 2_000 }, (_, index) => ({
      role: index % 2 ? 'assistant' : 'user',
      content: 'abc '.repeat(500),
    }));
    expect(tokenizer.applyChatTemplate(messages)).toHaveLength(2_000 * 2_000 + 1_000 * (6 + 11));
    expect(tokenizer.applyChatTemplate([{ role: 'user', content: 'a'.repeat(5e6) }])).toHaveLength(5e6 + 7);
    // As Mistral's does, this looks at all messages before each.
    const quadratic = await tinyTokenizer(
      {},
      {
        chat_template:
          "{% for m in messages %}{{ messages[:loop.index]|selectattr('role', 'equalto', 'user')|list|length }},{% endfor %}",
      },
    );
    expect(quadratic.applyChatTemplate(messages.map((message) => ({ ...message, content: '' })))).toMatch(
      /,1000,1000,$/,
    );
  });

  it.each(['messages', 'tools', 'documents'])(
    'refuses %s that contain themselves, or a few objects too often',
    async (name) => {
      const tokenizer = await tinyTokenizer({}, { chat_template: '{{ messages | tojson }}{{ tools }}{{ documents }}' });
      const cyclic: Record<string, unknown> = {};
      cyclic.self = [cyclic, cyclic];
      let shared: unknown[] = [1];
      for (let i = 0; i < 40; i++) shared = [shared, shared];
      const sparse: unknown[] = [];
      sparse.length = 2 ** 32 - 1;
      for (const [value, reason] of [
        [cyclic, /contain themselves/],
        [shared, /more than 262144 values/],
        [sparse, /more than 262144 values/],
        [['x'.repeat(1 << 24)], /16777216 characters/],
        [[new Map()], /hold a Map/],
      ] as const) {
        const messages = [{ role: 'tool', content: name === 'messages' ? { value } : 'a' }];
        const options = name === 'messages' ? {} : { [name]: [value] };
        for (const use of [
          () => tokenizer.applyChatTemplate(messages, options),
          () => tokenizer.encodeChat(messages, options),
        ])
          expectCode('INVALID_ARGUMENT', use, reason);
        await expectRejection('INVALID_ARGUMENT', tokenizer.encodeChatSliced(messages, options), reason);
      }
    },
  );
});
