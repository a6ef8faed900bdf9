import { CqilError } from '../errors.js';
import { readArgument } from '../util/options.js';
import { randomInt } from '../util/random.js';
import { ChatData } from './chat_data.js';
import { checkMessages, renderSomeForm, withSuffix, type ChatMessage } from './chat_messages.js';
import { invalidTokenizer, isObject, quote } from './invalid.js';
import { strip } from './jinja/strip.js';
import { Budget, BudgetError, MAX_MS, sizeOf, TimeError, type Size } from './jinja/budget.js';
import { runTemplate } from './jinja/interpreter.js';
import type { Node } from './jinja/library.js';
import { parseTemplate, variablesOf } from './jinja/source.js';

export interface ChatOptions {
  /**
   * End with the words that open the assistant's answer; `add_generation_prompt` is the same. Default true, false with
   * `continueFinalMessage`.
   */
  addGenerationPrompt?: boolean;
  /**
   * End right after the final message's text, so that the model continues it; `continue_final_message` is the same.
   * Default false.
   */
  continueFinalMessage?: boolean;
  /** Tools the model may call, as the template expects them. */
  tools?: readonly unknown[] | null;
  /** Any other variable that the template reads. */
  [variable: string]: unknown;
}

/** What a program gave to a template: plain data, checked. */
export interface Chat {
  messages: ChatMessage[];
  tools: unknown[] | null;
  /** Other variables that the template reads. */
  variables: Record<string, unknown>;
  addGenerationPrompt: boolean;
  continueFinalMessage: boolean;
  /** How much the messages, tools and variables hold. */
  size: Size;
}

/** What a template renders, and a way to render it again with other texts. */
export interface Rendering {
  text: string;
  /**
   * Replaces each value that came from outside: the messages, the tools and the other variables. `replace` gets the
   * value and its name, and works in short slices. Returns a function that renders the new values.
   */
  again(replace: <T>(value: T, name: string) => Generator<void, T>): Generator<void, () => string>;
}

interface Parsed {
  program: Node;
  variables: ReadonlySet<string>;
}

const MAX_REASON = 300;

/**
 * Renders messages to the prompt a model was trained on. The templates are Jinja, parsed on first use and run within
 * limits.
 */
export class ChatTemplate {
  readonly #parsed = new Map<string, Parsed>();

  /**
   * `sources`: templates by name, "default" among them; "tool_use", where there is one, is for messages with tools.
   * `names`: the special tokens that a template may ask for, as `bos_token` and the like.
   */
  constructor(
    readonly sources: ReadonlyMap<string, string>,
    readonly names: Readonly<Record<string, string | string[]>>,
  ) {}

  get source(): string {
    return this.sources.get('default')!;
  }

  /** Names of the variables that the templates read. Throws INVALID_TOKENIZER when one is malformed. */
  get variables(): string[] {
    return [...new Set([...this.sources.keys()].flatMap((name) => [...this.#parse(name).variables]))].toSorted();
  }

  /**
   * Copies and checks what a program gives, in short slices. Throws INVALID_ARGUMENT for options or messages that no
   * template or this one does not take, INVALID_TOKENIZER when the template is malformed.
   */
  *read(given: readonly ChatMessage[], options: ChatOptions = {}): Generator<void, Chat> {
    const { tools: givenTools, others, ...flags } = readArgument('The options of a chat', () => readOptions(options));
    const data = new ChatData();
    const messages = (yield* data.copy(given, 'The messages')) as ChatMessage[];
    const tools = (yield* data.copy(givenTools ?? null, 'The tools')) as unknown[] | null;
    const variables = (yield* data.copy(others, 'The variables of the chat template')) as Record<string, unknown>;
    checkMessages(messages);
    const { variables: known } = this.#for(tools);
    for (const name of Object.keys(variables)) {
      if (!known.has(name)) throw unknownVariable(name, known);
    }
    if (tools && tools.length > 0 && !known.has('tools')) {
      throw new CqilError(
        'INVALID_ARGUMENT',
        'The chat template does not read tools, so the model would not see them; expected none, or a model whose ' +
          'template has a place for them.',
      );
    }
    return { messages, tools, variables, ...flags, size: data.size };
  }

  /**
   * Throws INVALID_TOKENIZER when the template goes beyond its limits, INVALID_ARGUMENT for messages it does not take,
   * and TimeError after `maxMs` milliseconds where that is less than the limit.
   */
  render({ messages, tools, variables, ...flags }: Chat, maxMs = MAX_MS): Rendering {
    const { program } = this.#for(tools);
    // A template that concatenates a token the model does not have expects an empty text.
    const fixed = { bos_token: '', eos_token: '', ...this.names, add_generation_prompt: flags.addGenerationPrompt };
    const given: Record<string, unknown> = { tools, ...variables };
    const run = (chosen: ChatMessage[], values: Record<string, unknown>, started = performance.now()): string => {
      const render = (messages: ChatMessage[]): string =>
        runWithin(program, { ...fixed, ...values, messages }, started, maxMs);
      return flags.continueFinalMessage ? upToLastText(chosen, render) : render(chosen);
    };
    const started = performance.now();
    const { messages: chosen, text } = renderSomeForm(messages, (form) => run(form, given, started));
    return {
      text,
      *again(replace) {
        const replaced = yield* replace(chosen, 'messages');
        const values: Record<string, unknown> = {};
        for (const [name, value] of Object.entries(given)) values[name] = yield* replace(value, name);
        return () => run(replaced, values);
      },
    };
  }

  #for(tools: unknown[] | null): Parsed {
    return this.#parse(tools && tools.length > 0 && this.sources.has('tool_use') ? 'tool_use' : 'default');
  }

  #parse(name: string): Parsed {
    let parsed = this.#parsed.get(name);
    if (!parsed) {
      try {
        const program = parseTemplate(this.sources.get(name)!);
        parsed = { program, variables: variablesOf(program) };
      } catch (cause) {
        throw invalidTokenizer(`The chat template cannot be parsed: ${reasonOf(cause)}`, cause);
      }
      this.#parsed.set(name, parsed);
    }
    return parsed;
  }
}

export function expectChatOptions(options: unknown): void {
  if (!readArgument('The options of a chat', () => isObject(options)))
    throw new CqilError('INVALID_ARGUMENT', `The options of a chat are ${quote(options)}; expected an object.`);
}

function readOptions(options: ChatOptions) {
  expectChatOptions(options);
  const { addGenerationPrompt, add_generation_prompt, continueFinalMessage, continue_final_message, tools, ...others } =
    options;
  const flag = (name: string, ...spellings: unknown[]): boolean | undefined => {
    const values = spellings.filter((value) => value !== undefined);
    if (values.length > 1) throw new CqilError('INVALID_ARGUMENT', `${name} is given in both spellings; expected one.`);
    if (values.length > 0 && typeof values[0] !== 'boolean')
      throw new CqilError('INVALID_ARGUMENT', `${name} is ${quote(values[0])}; expected true or false.`);
    return values[0] as boolean | undefined;
  };
  const adds = flag('addGenerationPrompt', addGenerationPrompt, add_generation_prompt);
  const continues = flag('continueFinalMessage', continueFinalMessage, continue_final_message) ?? false;
  if (adds && continues)
    throw new CqilError(
      'INVALID_ARGUMENT',
      'Both addGenerationPrompt and continueFinalMessage are true; expected one: an answer begins, or the final ' +
        'message goes on.',
    );
  if (tools !== undefined && tools !== null && !Array.isArray(tools))
    throw new CqilError('INVALID_ARGUMENT', `tools is ${quote(tools)}; expected an array.`);
  for (const name of Object.keys(others)) if (others[name] === undefined) delete others[name];
  return { addGenerationPrompt: adds ?? !continues, continueFinalMessage: continues, tools, others };
}

function unknownVariable(name: string, variables: ReadonlySet<string>): CqilError {
  const known = [...variables].filter((variable) => !['messages', 'tools', 'add_generation_prompt'].includes(variable));
  const expected = ['addGenerationPrompt', 'continueFinalMessage', 'tools', ...known].join(', ');
  return new CqilError(
    'INVALID_ARGUMENT',
    `The chat template reads no variable ${quote(name)}, so it would have no effect; expected ${expected}.`,
  );
}

function runWithin(program: Node, variables: Record<string, unknown>, started: number, maxMs: number): string {
  try {
    return runTemplate(program, variables, new Budget(sizeOf(variables), started, maxMs));
  } catch (cause) {
    if (cause instanceof TimeError && maxMs < MAX_MS) throw cause;
    if (cause instanceof BudgetError)
      throw invalidTokenizer(`The chat template goes beyond its limits: ${reasonOf(cause)}`, cause);
    // It recursed too deep for the stack, or made a string that is too long for the engine.
    if (cause instanceof RangeError)
      throw invalidTokenizer(`The chat template goes beyond what can be computed: ${reasonOf(cause)}`, cause);
    throw new CqilError('INVALID_ARGUMENT', `The chat template refuses these messages: ${reasonOf(cause)}`, { cause });
  }
}

function reasonOf(cause: unknown): string {
  const reason = cause instanceof RangeError ? 'it nests too deep' : (cause as Error).message;
  return reason.length > MAX_REASON ? `${reason.slice(0, MAX_REASON)}…` : /[.!?]$/.test(reason) ? reason : `${reason}.`;
}

/**
 * What a template renders, up to the end of the last message's text. To find that end, the messages are rendered a
 * second time with a random mark after that text.
 */
function upToLastText(messages: ChatMessage[], render: (messages: ChatMessage[]) => string): string {
  const mark = Array.from({ length: 4 }, () => randomInt(1e8, 1e9)).join('');
  const marked = render(withSuffix(messages, mark));
  const whole = render(messages);
  const end = marked.lastIndexOf(mark);
  // A template may show the message twice; the last time counts.
  const text = marked.slice(0, end).replaceAll(mark, '');
  // Many templates trim messages.
  const shown = [text, strip(text, 'right')].find((start) => whole.startsWith(start));
  if (end < 0 || shown === undefined)
    throw new CqilError(
      'INVALID_ARGUMENT',
      'The chat template does not show the final message as it is; expected one that can be continued.',
    );
  return shown;
}
