import { CqilError } from '../../errors.js';

/** Which continuation follows a context: the gold one should be the likeliest. */
export interface ChoicesItem {
  form: 'choices';
  query: string;
  choices: string[];
  /** Index of the right choice. */
  gold: number;
}

/** Which context a continuation follows: it should be likeliest after the gold one. */
export interface SchemaItem {
  form: 'schema';
  contextOptions: string[];
  continuation: string;
  gold: number;
}

/** What follows a context: greedy decoding should give the continuation. */
export interface CompletionItem {
  form: 'completion';
  context: string;
  continuation: string;
}

/** One question, and where it stands in its file. */
export type TaskItem = (ChoicesItem | SchemaItem | CompletionItem) & { line: number };

export type TaskForm = TaskItem['form'];

/** Questions of one form, at least one. */
export interface Task {
  /** What errors call it. */
  name: string;
  form: TaskForm;
  items: TaskItem[];
}

const FORMS =
  '{"query", "choices", "gold"}, {"context_options", "continuation", "gold"} or {"context", "continuation"}';
/** HellaSwag as plain text: a context, the index of the right ending, and four endings. */
const HELLASWAG_LINES = 6;

/**
 * Reads a task: one JSON object per line, or HellaSwag's six lines per item where the text does not begin with `{`.
 * Fields beyond those of a form are ignored.
 *
 * @throws CqilError INVALID_ARGUMENT, naming the line.
 */
export function parseTask(text: string, name: string): Task {
  const lines = text.split(/\r?\n/);
  const items = text.trimStart().startsWith('{') ? parseJsonLines(lines, name) : parseHellaswag(lines, name);
  const [first] = items;
  if (!first)
    throw new CqilError('INVALID_ARGUMENT', `The task ${name} is empty, expected one item per line: ${FORMS}.`);
  return { name, form: first.form, items };
}

function parseJsonLines(lines: string[], name: string): TaskItem[] {
  const items: TaskItem[] = [];
  for (const [i, line] of lines.entries()) {
    if (line.trim() === '') continue;
    const item = new ItemReader(name, i + 1).read(line);
    const form = items[0]?.form ?? item.form;
    if (item.form !== form)
      throw invalid(name, i + 1, `has the form ${item.form}`, `${form}, like line ${items[0]!.line}`);
    items.push(item);
  }
  return items;
}

function parseHellaswag(lines: string[], name: string): TaskItem[] {
  const items: TaskItem[] = [];
  const end = lines.findLastIndex((line) => line.trim() !== '') + 1;
  for (let at = 0; at < end; at += HELLASWAG_LINES) {
    const [query, gold, ...choices] = lines.slice(at, Math.min(at + HELLASWAG_LINES, end));
    const blank = [query, ...choices].findIndex((line) => line!.trim() === '');
    // A file of any other kind goes wrong in its second line already.
    if (gold === undefined || !/^[0-3]$/.test(gold.trim()))
      throw invalid(
        name,
        at + 2,
        `is ${quote(gold ?? '')}`,
        `the index 0 to 3 of the right ending, or lines of JSON: ${FORMS}`,
      );
    if (choices.length < 4)
      throw invalid(
        name,
        end,
        'is the last',
        `${HELLASWAG_LINES} lines per item: a context, the index of the right ending, four endings`,
      );
    if (blank >= 0)
      throw invalid(name, at + 1 + (blank === 0 ? 0 : blank + 1), 'is blank', blank === 0 ? 'a context' : 'an ending');
    items.push({ form: 'choices', query: query!, choices, gold: Number(gold), line: at + 1 });
  }
  return items;
}

/** Reads one line of JSON. */
class ItemReader {
  readonly #name: string;
  readonly #line: number;

  constructor(name: string, line: number) {
    this.#name = name;
    this.#line = line;
  }

  read(text: string): TaskItem {
    const value = this.#parse(text);
    const line = this.#line;
    if ('choices' in value) {
      const choices = this.#texts(value, 'choices');
      return {
        form: 'choices',
        query: this.#text(value, 'query'),
        choices,
        gold: this.#gold(value, choices.length),
        line,
      };
    }
    if ('context_options' in value) {
      const contextOptions = this.#texts(value, 'context_options');
      return {
        form: 'schema',
        contextOptions,
        continuation: this.#text(value, 'continuation'),
        gold: this.#gold(value, contextOptions.length),
        line,
      };
    }
    if ('context' in value)
      return {
        form: 'completion',
        context: this.#text(value, 'context'),
        continuation: this.#text(value, 'continuation'),
        line,
      };
    throw this.#invalid(`has the fields ${Object.keys(value).join(', ') || 'of an empty object'}`, FORMS);
  }

  #parse(text: string): Record<string, unknown> {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (cause) {
      throw this.#invalid(`is no JSON (${(cause as Error).message})`, 'one object per line', cause);
    }
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
    throw this.#invalid(`is ${quote(value)}`, 'a JSON object');
  }

  #text(value: Record<string, unknown>, field: string): string {
    const text = value[field];
    if (typeof text === 'string' && text.trim() !== '') return text;
    throw this.#invalid(`has ${field} ${quote(text)}`, 'a string that is not blank');
  }

  #texts(value: Record<string, unknown>, field: string): string[] {
    const texts = value[field];
    if (
      Array.isArray(texts) &&
      texts.length >= 2 &&
      texts.every((text) => typeof text === 'string' && text.trim() !== '')
    )
      return texts as string[];
    throw this.#invalid(`has ${field} ${quote(texts)}`, 'two strings or more, none of them blank');
  }

  #gold(value: Record<string, unknown>, count: number): number {
    const { gold } = value;
    if (Number.isInteger(gold) && (gold as number) >= 0 && (gold as number) < count) return gold as number;
    throw this.#invalid(`has gold ${quote(gold)}`, `an index from 0 to ${count - 1}`);
  }

  #invalid(found: string, expected: string, cause?: unknown): CqilError {
    return invalid(this.#name, this.#line, found, expected, cause);
  }
}

function invalid(name: string, line: number, found: string, expected: string, cause?: unknown): CqilError {
  return new CqilError('INVALID_ARGUMENT', `Line ${line} of the task ${name} ${found}; expected ${expected}.`, {
    cause,
  });
}

/** A value as JSON, cut where it would fill the screen. */
function quote(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing';
  return text.length <= 80 ? text : `${text.slice(0, 80)}…`;
}
