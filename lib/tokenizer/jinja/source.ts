import { jinjaLibrary, type Node } from './library.js';

// The longest template of a published model takes 30 KB.
const MAX_SOURCE = 1 << 18;
// The library's lexer takes time that grows with the square of the length of such a run.
// Parsing cannot pause, and takes 10 to 80 ms for as many. The templates of published models have less than half.
const MAX_SIGNS = 1 << 13;
const MAX_WHITESPACE = 500;
const RAW = /(^[ \t]*)?\{%(-?)\s*raw\s*(-?)%\}/gm;
const END_RAW = /\{%(-?)\s*endraw\s*(-?)%\}(\n?)/g;
const BUILT_IN = new Set([
  'range',
  'namespace',
  'raise_exception',
  'strftime_now',
  'true',
  'false',
  'none',
  'True',
  'False',
  'None',
  'loop',
  'caller',
  'varargs',
  'kwargs',
]);

/**
 * Parses a template, as Hugging Face configures Jinja: `trim_blocks`, `lstrip_blocks`, `break` and `continue`. Throws
 * with the reason.
 */
export function parseTemplate(source: string): Node {
  if (source.length > MAX_SOURCE) throw new Error(`it is ${source.length} characters long, more than ${MAX_SOURCE}`);
  if (longestWhitespace(source) > MAX_WHITESPACE) throw new Error(`it has more than ${MAX_WHITESPACE} spaces in a row`);
  if (countSigns(source) > MAX_SIGNS) throw new Error(`it has more than ${MAX_SIGNS} words and signs`);
  // `user_text.ts` marks what came from messages with these characters.
  if (/[\u{F0000}-\u{FFFFF}]/u.test(source))
    throw new Error("it has characters of Unicode's plane 15, which is for private use");
  const { parse, tokenize } = jinjaLibrary();
  try {
    return parse(tokenize(withoutRaw(source), { lstrip_blocks: true, trim_blocks: true }));
  } catch (cause) {
    // The library reads past the end of a template that is cut short.
    if (cause instanceof TypeError) throw new Error('it ends within a block or an expression', { cause });
    if (cause instanceof RangeError) throw new Error('it nests too deep', { cause });
    throw cause;
  }
}

function countSigns(source: string): number {
  let count = 0;
  for (const _ of source.matchAll(/[\p{L}\p{N}_]+|[^\p{L}\p{N}_\s]/gu)) if (++count > MAX_SIGNS) break;
  return count;
}

function longestWhitespace(source: string): number {
  let longest = 0;
  for (const [run] of source.matchAll(/\s+/g)) longest = Math.max(longest, run.length);
  return longest;
}

/** Replaces `raw` blocks, which the library does not know, with expressions that print their text. */
function withoutRaw(source: string): string {
  let result = '';
  let position = 0;
  for (const { 0: opening, 1: margin = '', 2: before, 3: first, index } of source.matchAll(RAW)) {
    if (index < position) continue;
    const start = index + opening.length;
    END_RAW.lastIndex = start;
    const end = END_RAW.exec(source);
    if (!end) break;
    const [closing, last, after, newline] = end;
    let text = source.slice(start, end.index);
    if (first) text = text.trimStart();
    text = last ? text.trimEnd() : text.replace(/(?<=\n)[ \t]*$/, '');
    // The library looks for blocks before it knows string literals, so a brace in one would open a block.
    const literal = JSON.stringify(text).replaceAll('{', '\\u007b').replaceAll('}', '\\u007d');
    result += `${source.slice(position, index)}${before ? margin : ''}{{${before} ${literal} ${after}}}${after ? newline : ''}`;
    position = end.index + closing.length;
  }
  return result + source.slice(position);
}

/** Names of the variables that a template reads and has not itself set before. */
// oxlint-disable-next-line max-lines-per-function -- a closure for each kind of node, over names read and set so far
export function variablesOf(program: Node): Set<string> {
  const read = new Set<string>();
  const macros = new Set<string>();
  /** How often each name has been set so far, in this block and those around it. */
  const set = new Map<string, number>();
  let block: string[] = [];

  const assign = (target: unknown): void => {
    if (!isNode(target)) return;
    if (target.type === 'Identifier') {
      const name = target.value as string;
      set.set(name, (set.get(name) ?? 0) + 1);
      block.push(name);
    } else if (target.type === 'TupleLiteral') for (const inner of target.value as unknown[]) assign(inner);
    else visit(target);
  };
  /** Visits a block, whose variables end with it. Returns the names of these. */
  const within = (run: () => void): string[] => {
    const outer = block;
    const inner: string[] = (block = []);
    run();
    for (const name of inner) set.set(name, set.get(name)! - 1);
    block = outer;
    return inner;
  };
  const parameters = (nodes: unknown): void => {
    for (const node of (nodes ?? []) as Node[]) {
      if (node.type === 'KeywordArgumentExpression') visit(node.value);
      assign(node.type === 'KeywordArgumentExpression' ? node.key : node);
    }
  };
  const filter = (node: unknown): void => {
    if (isNode(node) && node.type === 'CallExpression') visit(node.args);
  };
  const visit = (node: unknown): void => {
    if (Array.isArray(node)) for (const child of node) visit(child);
    else if (node instanceof Map) for (const entry of node) visit(entry);
    else if (isNode(node)) visitNode(node);
  };
  // oxlint-disable-next-line max-lines-per-function -- one case for each kind of node
  const visitNode = (node: Node): void => {
    switch (node.type) {
      case 'Identifier': {
        const name = node.value as string;
        if (!BUILT_IN.has(name) && !set.get(name)) read.add(name);
        return;
      }
      case 'Set':
        visit(node.value);
        within(() => visit(node.body));
        return assign(node.assignee);
      case 'If': {
        visit(node.test);
        const body = within(() => visit(node.body));
        const alternate = new Set(within(() => visit(node.alternate)));
        // A name that is set in only one branch may have to come from outside.
        for (const name of new Set(body)) if (alternate.has(name)) assign({ type: 'Identifier', value: name });
        return;
      }
      case 'For': {
        const iterable = node.iterable as Node;
        const filtered = iterable.type === 'SelectExpression';
        visit(filtered ? iterable.lhs : iterable);
        within(() => {
          assign(node.loopvar);
          if (filtered) visit(iterable.test);
          visit(node.body);
        });
        within(() => visit(node.defaultBlock));
        return;
      }
      case 'Macro':
        macros.add((node.name as Node).value as string);
        within(() => {
          parameters(node.args);
          visit(node.body);
        });
        return;
      case 'CallStatement':
        visit(node.call);
        within(() => {
          parameters(node.callerArgs);
          visit(node.body);
        });
        return;
      case 'FilterExpression':
        visit(node.operand);
        return filter(node.filter);
      case 'FilterStatement':
        visit(node.body);
        return filter(node.filter);
      case 'TestExpression':
        return visit(node.operand);
      case 'KeywordArgumentExpression':
        return visit(node.value);
      case 'MemberExpression':
        visit(node.object);
        return node.computed ? visit(node.property) : undefined;
      default:
        for (const [field, child] of Object.entries(node)) if (field !== 'operator') visit(child);
    }
  };
  visit(program);
  // A macro may be used in another one before it is defined.
  for (const name of macros) read.delete(name);
  return read;
}

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && typeof (value as Node).type === 'string';
}
