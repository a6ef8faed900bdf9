import { describe, expect, it } from 'vitest';
import * as cqil from '../lib/index.js';
import { resolvePlan } from '../lib/plan/plan.js';
import { TINY_JSON } from './support/tiny_tokenizer.js';
import { loadTokenizer } from '../lib/tokenizer/index.js';

const { proxy: revoked, revoke } = Proxy.revocable({}, {});
revoke();
const fails = (): never => {
  throw new Error('not to be read');
};
const names = [
  'length',
  'role',
  'content',
  'href',
  'signal',
  'plan',
  'groups',
  'tools',
  'after',
  'limit',
  'stop',
  'temperature',
  'skipSpecialTokens',
  'version',
  'layers',
];

/** Values of types that no function takes everywhere. */
const VALUES: Record<string, unknown> = {
  undefined,
  null: null,
  'a number': 5,
  NaN: Number.NaN,
  'a string': 'x',
  'an empty string': '',
  true: true,
  'a bigint': 5n,
  'a symbol': Symbol('x'),
  'a function': () => 1,
  'an array': [1],
  'an empty array': [],
  'an array of null': [null],
  'an array of objects': [{}],
  'an object': { x: 1 },
  'an object without prototype': Object.create(null),
  'a date': new Date(0),
  'getters that throw': Object.defineProperties(
    {},
    Object.fromEntries(names.map((name) => [name, { get: fails, enumerable: true }])),
  ),
  'a getter that throws what is no error': {
    get groups(): never {
      // eslint-disable-next-line no-throw-literal
      throw Object.create(null);
    },
  },
  'an array with a getter that throws': Object.defineProperty([1], 0, { get: fails }),
  'a proxy that throws': new Proxy({}, { get: fails, ownKeys: fails, has: fails, getPrototypeOf: fails }),
  'a proxy of an array that throws': new Proxy([1], { get: fails, ownKeys: fails, has: fails }),
  'a revoked proxy': revoked,
};

/** Expects that a call works or fails with a CqilError that is no INTERNAL one. */
async function expectCoded(call: () => unknown): Promise<string> {
  try {
    await call();
    return 'works';
  } catch (error) {
    expect(error).toBeInstanceOf(cqil.CqilError);
    const { code, message } = error as cqil.CqilError;
    expect(code).not.toBe('INTERNAL');
    expect(message).toMatch(/[a-z].*\.$/s);
    return code;
  }
}

/** A value, and after it an element that the array does not have. */
function holed<T>(value: T): T[] {
  const list = [value];
  list.length = 2;
  return list;
}

/** An array of nothing but holes. */
function holes(length: number): unknown[] {
  const list: unknown[] = [];
  list.length = length;
  return list;
}

type Call = (value: never) => unknown;
const plan = resolvePlan('P2-S4-E8', 12);
const PLAN_CALLS: Record<string, Call> = {
  formatPlan: cqil.formatPlan,
  describePlan: cqil.describePlan,
  drawPlan: cqil.drawPlan,
};

describe.each(Object.entries(PLAN_CALLS))('%s', (_name, call) => {
  it.each(Object.entries(VALUES))('refuses %s', async (_what, value) => {
    expect(await expectCoded(() => call(value as never))).toBe('INVALID_PLAN');
  });

  it.each(Object.entries(VALUES))('refuses groups that are %s', async (what, groups) => {
    const expected = what === 'an empty array' ? 'works' : 'INVALID_PLAN';
    expect(await expectCoded(() => call({ ...plan, groups } as never))).toBe(expected);
  });
});

it('formatPlan says that evidence is no JSON', async () => {
  const cyclic: Record<string, unknown> = {};
  cyclic.self = cyclic;
  for (const evidence of [cyclic, { n: 5n }])
    expect(await expectCoded(() => cqil.formatPlan({ ...plan, evidence }))).toBe('INVALID_PLAN');
});

it.each(Object.entries(VALUES))('resolvePlan and loadModel have a code for %s', async (what, value) => {
  const anything = value as never;
  const resolved = await expectCoded(() => cqil.resolvePlan(anything, 12));
  expect(resolved).toBe(what === 'undefined' ? 'works' : 'INVALID_PLAN');
  await expectCoded(() => cqil.resolvePlan('sequential', anything));
  if (what !== 'undefined')
    expect(await expectCoded(() => cqil.loadModel(anything))).toMatch(/INVALID_ARGUMENT|FILE_NOT_FOUND/);
  for (const name of [
    'plan',
    'backend',
    'execution',
    'devices',
    'threads',
    'contextLength',
    'kvCache',
    'activations',
    'mmap',
    'onProgress',
    'onWarning',
    'signal',
  ]) {
    await expectCoded(() => cqil.loadModel('no/such/folder', { [name]: anything }));
  }
  await expectCoded(() => cqil.loadModel('no/such/folder', anything));
});

describe('a model', async () => {
  const model = await cqil.loadModel();
  const session = model.createSession({ contextLength: 64 });
  const chat = await loadTokenizer({
    kind: 'huggingface',
    json: TINY_JSON,
    config: { chat_template: '{{ messages[0].content }}{{ tools }}{{ documents }}' },
    generationConfig: {},
  });
  const messages = [{ role: 'user', content: 'a' }];
  const signalled = (signal: never) => ({ signal });
  const calls: Record<string, Call> = {
    'generate(…)': (value) => model.generate(value, { maxTokens: 1 }),
    'generate options': (value) => model.generate([1], value),
    'createSession(…)': (value) => model.createSession(value).close(),
    'program(…)': (value) => model.program(value),
    'prepare(…)': (value) => model.prepare(value),
    'prefill(…)': (value) => session.prefill(value),
    'prefill options': (value) => session.prefill([1], value),
    'decode(…)': (value) => session.decode(value),
    'shortlist(…)': (value) => session.shortlist(value, 1),
    'shortlist count': (value) => session.shortlist([1], value),
    'score(…)': (value) => session.score(value),
    'truncate(…)': (value) => session.truncate(value),
    'rewind(…)': (value) => session.rewind(value),
    'a signal of prefill': (value) => session.prefill([1], signalled(value)),
    ...Object.fromEntries(
      [
        'maxTokens',
        'stop',
        'parseSpecialTokens',
        'signal',
        'plan',
        'session',
        'temperature',
        'topK',
        'logitBias',
        'seed',
        'logprobs',
      ].map((name) => {
        return [`generate ${name}`, (value: never) => model.generate([1], { maxTokens: 1, [name]: value })];
      }),
    ),
    ...Object.fromEntries(
      [
        ['the model', model.tokenizer],
        ['chats', chat],
      ].flatMap(([name, tokenizer]) =>
        Object.entries(tokenizerCalls(tokenizer as cqil.Tokenizer)).map(([call, run]) => [
          `${call} of ${name as string}`,
          run,
        ]),
      ),
    ),
    'applyChatTemplate(…)': (value) => chat.applyChatTemplate(value),
    'applyChatTemplate options': (value) => chat.applyChatTemplate(messages, value),
    'encodeChat(…)': (value) => chat.encodeChat(value),
    'encodeChatSliced options': (value) => chat.encodeChatSliced(messages, value),
    'a signal of encodeChatSliced': (value) => chat.encodeChatSliced(messages, signalled(value)),
    'a message': (value) => chat.encodeChat([value]),
    content: (value) => chat.encodeChat([{ role: 'user', content: value }]),
    'content of a tool': (value) => chat.encodeChat([{ role: 'tool', content: value }]),
    'a field of a message': (value) => chat.encodeChat([{ role: 'user', content: 'a', name: value }]),
    'tool calls': (value) => chat.encodeChat([{ role: 'user', content: 'a', tool_calls: value }]),
    'a tool': (value) => chat.encodeChat(messages, { tools: [value] }),
    documents: (value) => chat.encodeChat(messages, { documents: [value] }),
  };

  it.each<[string, () => unknown]>([
    ['ids', () => session.prefill(holed(1))],
    ['ids of a prompt', () => model.generate(holed(1), { maxTokens: 1 })],
    ['ids to decode', () => model.tokenizer.decode(holed(1))],
    ['stop', () => model.generate([1], { maxTokens: 1, stop: holed('a') })],
    ['devices', () => cqil.loadModel('no/such/folder', { devices: holes(1) as never })],
    ['messages', () => chat.encodeChat(holed(messages[0]!))],
    ['parts of content', () => chat.encodeChat([{ role: 'user', content: holed({ type: 'text', text: 'a' }) }])],
    ['tool calls', () => chat.encodeChat([{ role: 'user', content: 'a', tool_calls: holed({}) }])],
    ['tools', () => chat.encodeChat(messages, { tools: holed({}) })],
    ['documents', () => chat.encodeChat(messages, { documents: holed({}) } as never)],
  ])('refuses %s with a hole', async (_name, call) => {
    expect(await expectCoded(call)).toBe('INVALID_ARGUMENT');
  });

  it.each(Object.entries(calls))('%s', async (_name, call) => {
    for (const value of Object.values(VALUES)) {
      session.truncate(0);
      await expectCoded(() => call(value as never));
    }
  });
});

function tokenizerCalls(tokenizer: cqil.Tokenizer): Record<string, Call> {
  return {
    'encode(…)': (value) => tokenizer.encode(value),
    'encode options': (value) => tokenizer.encode('a', value),
    'encodeSliced options': (value) => tokenizer.encodeSliced('a', value),
    ...Object.fromEntries(
      ['after', 'limit', 'signal', 'addSpecialTokens', 'parseSpecialTokens'].map((name) => [
        `encodeSliced ${name}`,
        (value: never) => tokenizer.encodeSliced('a', { [name]: value }),
      ]),
    ),
    'decode(…)': (value) => tokenizer.decode(value),
    'decode options': (value) => tokenizer.decode([1], value),
    'detokenizer(…)': (value) => tokenizer.detokenizer(value),
    'push(…)': (value) => tokenizer.detokenizer().push(value),
    'tokenBytes(…)': (value) => tokenizer.tokenBytes(value),
    'tokenToId(…)': (value) => tokenizer.tokenToId(value),
    'idToToken(…)': (value) => tokenizer.idToToken(value),
    'isSpecial(…)': (value) => tokenizer.isSpecial(value),
  };
}
