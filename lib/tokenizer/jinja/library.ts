// What cqil uses of @huggingface/jinja is declared here: the library's own declarations import without file extensions,
// which a Node-style resolution cannot follow, and they call private what our interpreter overrides. The version is
// pinned for that reason.

/** A part of a parsed template; its other fields depend on `type`. */
export interface Node {
  type: string;
  [field: string]: unknown;
}

/** A value while a template runs: `type` says which, `value` is JavaScript's own. */
export interface Value {
  type: string;
  value: unknown;
  builtins: ReadonlyMap<string, Value>;
  toString(): string;
  __bool__(): { value: boolean };
}

export function isText(value: Value | undefined): value is Value & { value: string } {
  return value?.type === 'StringValue';
}

export function isList(value: Value): value is Value & { value: Value[] } {
  return Array.isArray(value.value);
}

export function isMap(value: Value): value is Value & { value: Map<string, Value> } {
  return value.value instanceof Map;
}

export type ValueClass = new (value?: unknown) => Value;
export type JinjaFunction = (args: Value[], scope: Scope) => Value;

export interface Scope {
  /** Declares a variable with a JavaScript value and gives what the template sees. */
  set(name: string, value: unknown): Value;
  setVariable(name: string, value: Value): Value;
  readonly variables: ReadonlyMap<string, Value>;
  readonly parent?: Scope;
}

export interface LibraryInterpreter {
  run(program: Node): Value;
  evaluate(node: Node | undefined, scope: Scope): Value;
  evaluateBlock(nodes: Node[], scope: Scope): Value;
  evaluateFor(node: Node, scope: Scope): Value;
  evaluateIdentifier(node: Node, scope: Scope): Value;
  evaluateBinaryExpression(node: Node, scope: Scope): Value;
  evaluateMemberExpression(node: Node, scope: Scope): Value;
  evaluateCallExpression(node: Node, scope: Scope): Value;
  evaluateArguments(nodes: Node[], scope: Scope): [positional: Value[], named: Map<string, Value>];
  applyFilter(operand: Value, filter: Node, scope: Scope): Value;
}

interface Library {
  Environment: new (parent?: Scope) => Scope;
  Interpreter: new (global: Scope) => LibraryInterpreter;
  tokenize(source: string, options: { lstrip_blocks: boolean; trim_blocks: boolean }): unknown[];
  parse(tokens: unknown[]): Node;
}

/**
 * The library, loaded with the first template: most users want a model's first token soon, and not all of them chat.
 */
export function jinjaLibrary(): Library {
  return require('@huggingface/jinja') as unknown as Library;
}
