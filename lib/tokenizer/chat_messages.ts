import { CqilError } from '../errors.js';
import { isObject, quote } from './invalid.js';
import { TimeError } from './jinja/budget.js';
import { TextLoopError } from './jinja/interpreter.js';

/** A part of a message's content; text is the only kind that a language model takes. */
export interface ChatPart {
  type: string;
  text?: string;
  [field: string]: unknown;
}

export interface ChatMessage {
  role: string;
  /**
   * A text, or parts of text; for a template that does not know parts, they are joined by newlines. May be null or left
   * out beside `tool_calls`. A tool's answer may be any object that the template accepts.
   */
  content?: string | readonly ChatPart[] | Record<string, unknown> | null;
  /** What else a template may read: tool calls, names. */
  [field: string]: unknown;
}

/** Roles whose content must be text; the content of other roles, such as a tool, may be data. */
const SPEAKERS = ['system', 'developer', 'user', 'assistant'];

/** Throws INVALID_ARGUMENT for messages that no template could render. */
export function checkMessages(messages: unknown): asserts messages is ChatMessage[] {
  if (!Array.isArray(messages) || messages.length === 0)
    throw invalid('A chat needs at least one message; expected an array of { role, content }.');
  for (const [index, message] of messages.entries()) {
    if (!isObject(message) || typeof message.role !== 'string')
      throw invalid(`Message ${index} has no role; expected { role, content }.`);
    checkContent(index, message);
  }
}

function checkContent(index: number, message: Record<string, unknown>): void {
  const { role, content } = message;
  if (typeof content === 'string') return;
  if (content === undefined || content === null) {
    if (Array.isArray(message.tool_calls) || isObject(message.function_call)) return;
    if (SPEAKERS.includes(role as string))
      throw invalid(`Message ${index} has no content; expected a string, parts of text or, beside tool_calls, null.`);
    return;
  }
  const isData = !SPEAKERS.includes(role as string) && typeof content === 'object';
  if (isParts(content)) {
    for (const part of content) {
      if (part.type !== 'text' || typeof part.text !== 'string')
        throw invalid(`Message ${index} has the part ${quote(part)}; expected { type: "text", text }.`);
    }
  } else if (!isData)
    throw invalid(`Message ${index} has the content ${quote(content)}; expected a string or parts of text.`);
}

function isParts(content: unknown): content is ChatPart[] {
  return Array.isArray(content) && content.every((part) => isObject(part) && typeof part.type === 'string');
}

interface Form {
  /**
   * What becomes of content. `kept`: parts stay parts; `one`: they are joined into one part; `joined`: they are joined
   * into a string; `typed`: parts stay, and strings become parts too, for a template that loops over content.
   */
  parts: 'kept' | 'one' | 'joined' | 'typed';
  /** Whether missing content becomes an empty text. */
  empty: boolean;
  /** Whether the arguments of tool calls are parsed from JSON, as templates since Llama 3.1 expect. */
  parsed: boolean;
}

/**
 * Finds a form of the messages that a template can render, and renders it. Templates differ in how they treat content
 * in parts, missing content and the arguments of tool calls, so forms that mean the same are tried in turn. Throws what
 * `render` throws for the first form.
 */
export function renderSomeForm(
  messages: readonly ChatMessage[],
  render: (messages: ChatMessage[]) => string,
): { messages: ChatMessage[]; text: string } {
  const hasParts = messages.some(({ content }) => isParts(content));
  const hasNone = messages.some(({ content }) => content === undefined || content === null);
  const forms: Form[] = [];
  for (const parsed of callArguments(messages).some((text) => parsedJson(text) !== text) ? [true, false] : [true]) {
    for (const empty of hasNone ? [false, true] : [false]) forms.push({ parts: 'joined', empty, parsed });
  }
  const failures: unknown[] = [];
  for (const form of forms) {
    let text = attempt(form);
    if (text === undefined) {
      const { parts, ...others } = form;
      if (parts === 'joined' && (failures.at(-1) as Error).cause instanceof TextLoopError)
        forms.push({ ...others, parts: 'typed' });
      continue;
    }
    if (hasNone && !form.empty) {
      // A template that does not check whether there is content writes "None".
      const empty = attempt({ ...form, empty: true });
      if (empty !== undefined && countNone(empty) < countNone(text)) [form.empty, text] = [true, empty];
    }
    if (hasParts && form.parts === 'joined' && attempt({ ...form, parts: 'one' }) === text) {
      const kept = attempt({ ...form, parts: 'kept' });
      if (kept !== undefined) return { messages: inForm(messages, { ...form, parts: 'kept' }), text: kept };
    }
    return { messages: inForm(messages, form), text };
  }
  throw failures[0];

  function attempt(form: Form): string | undefined {
    try {
      return render(inForm(messages, form));
    } catch (error) {
      if (error instanceof TimeError || (error instanceof CqilError && error.code === 'INVALID_TOKENIZER')) throw error;
      failures.push(error);
      return undefined;
    }
  }
}

function inForm(messages: readonly ChatMessage[], { parts, empty, parsed }: Form): ChatMessage[] {
  return messages.map((message) => {
    const { content, tool_calls: calls } = message;
    const result = { ...message };
    if (isParts(content)) {
      const text = content.map((part) => part.text).join('\n');
      if (parts === 'joined') result.content = text;
      if (parts === 'one') result.content = [{ type: 'text', text }];
    } else if (parts === 'typed' && typeof content === 'string') result.content = [{ type: 'text', text: content }];
    if (empty && (content === undefined || content === null)) result.content = '';
    if (parsed && Array.isArray(calls)) result.tool_calls = calls.map(withParsedArguments);
    return result;
  });
}

function withParsedArguments(call: unknown): unknown {
  if (!isObject(call)) return call;
  if (isObject(call.function)) return { ...call, function: withParsedArguments(call.function) };
  return typeof call.arguments === 'string' ? { ...call, arguments: parsedJson(call.arguments) } : call;
}

function callArguments(messages: readonly ChatMessage[]): string[] {
  const calls = messages.flatMap(({ tool_calls: calls }) => (Array.isArray(calls) ? calls : [])).filter(isObject);
  return calls
    .map((call) => (isObject(call.function) ? call.function : call).arguments)
    .filter((value) => typeof value === 'string');
}

/** The object that a text holds in JSON; the text itself if it holds none. */
function parsedJson(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : text;
  } catch {
    return text;
  }
}

function countNone(text: string): number {
  return text.split('None').length;
}

/** The messages with something appended to the last one's text. Throws INVALID_ARGUMENT where that has none. */
export function withSuffix(messages: readonly ChatMessage[], suffix: string): ChatMessage[] {
  const last = messages.at(-1)!;
  const { content } = last;
  const part = isParts(content) ? content.at(-1) : undefined;
  if (typeof content === 'string') return [...messages.slice(0, -1), { ...last, content: content + suffix }];
  if (isParts(content) && part)
    return [
      ...messages.slice(0, -1),
      { ...last, content: [...content.slice(0, -1), { ...part, text: part.text + suffix }] },
    ];
  throw invalid('The final message has no text; expected one that can be continued.');
}

function invalid(message: string): CqilError {
  return new CqilError('INVALID_ARGUMENT', message);
}
