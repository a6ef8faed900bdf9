import { Budget, BudgetError } from './budget.js';
import { Costs, ELEMENT } from './costs.js';
import {
  isList,
  isMap,
  isText,
  jinjaLibrary,
  type JinjaFunction,
  type LibraryInterpreter,
  type Node,
  type Scope,
  type Value,
  type ValueClass,
} from './library.js';
import { equal } from './equality.js';
import { strftime } from './strftime.js';
import { SIDES, strip, type Side } from './strip.js';

// The limit of Jinja's own sandbox.
const MAX_RANGE = 100_000;
// The cost of a date, in characters.
const DATE = 500;

/** A `break` or `continue` on its way out to its loop, with the text that the iteration has made so far. */
class LoopExit extends Error {
  text = '';
  constructor(readonly kind: string) {
    super(`there is a ${kind.toLowerCase()} outside of a loop`);
  }
}

/** Thrown where a loop goes over a text: the template expects content in parts. */
export class TextLoopError extends Error {}

type Interpreter = new (scope: Scope, budget: Budget) => LibraryInterpreter;
type Values = ReturnType<typeof valueClasses>;
let loaded: { Interpreter: Interpreter; values: Values } | undefined;

/** Runs a parsed template with these variables. Throws BudgetError, or what the template raises. */
export function runTemplate(program: Node, variables: Record<string, unknown>, budget: Budget): string {
  const { Environment } = jinjaLibrary();
  const { Interpreter, values } = (loaded ??= load());
  const scope = new Environment();
  const constants = { false: false, true: true, none: null, False: false, True: true, None: null };
  for (const [name, value] of Object.entries({ ...constants, ...variables }))
    scope.setVariable(name, new Environment().set(name, value));
  const define = (name: string, run: JinjaFunction): void => void scope.setVariable(name, new values.Function(run));
  define('range', (args) => new values.Array(range(args, budget).map((value) => new values.Integer(value))));
  define('strftime_now', ([format]) => {
    budget.spend(DATE);
    return new values.String(strftime(new Date(), textOf(format, 'a format of times')));
  });
  define('raise_exception', ([message]) => {
    throw new Error(textOf(message, 'the message of an exception'));
  });
  return new Interpreter(scope, budget).run(program).value as string;
}

function load(): { Interpreter: Interpreter; values: Values } {
  const values = valueClasses();
  return { Interpreter: boundedInterpreter(values), values };
}

function range(args: Value[], budget: Budget): number[] {
  const bounds = args.map(({ value }) => value);
  if (bounds.length < 1 || bounds.length > 3 || !bounds.every((bound): bound is number => Number.isSafeInteger(bound)))
    throw new Error('range() takes one to three integers');
  const [start, stop, step = 1] = bounds.length === 1 ? [0, bounds[0]!] : (bounds as [number, number, number?]);
  if (step === 0) throw new Error('range() takes a step that is not zero');
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (length > MAX_RANGE) throw new BudgetError(`it asks for a range of ${length} numbers, more than ${MAX_RANGE}`);
  budget.spend(length * ELEMENT);
  return Array.from({ length }, (_, index) => start + index * step);
}

/** The library's classes of values, which it does not export. */
function valueClasses() {
  const { Environment } = jinjaLibrary();
  const classOf = (value: unknown): ValueClass => new Environment().set('value', value).constructor as ValueClass;
  return {
    String: classOf(''),
    Integer: classOf(0),
    Boolean: classOf(false),
    Array: classOf([]),
    Object: classOf({}),
    Function: classOf(() => null),
    Undefined: classOf(undefined),
  };
}

/**
 * The library's interpreter with two changes. It spends from a budget before it does something costly. And where the
 * library differs from Jinja, it does as Jinja does: the text of an iteration that ends in `break` or `continue` is
 * kept; each iteration has variables of its own; a loop over an undefined value is empty; values are compared as Python
 * compares them; whitespace, and which characters are stripped, is Python's; `~` also joins values that are not texts; and adding a list or an object to a text is an error.
 */
// oxlint-disable-next-line max-lines-per-function -- a class whose base is loaded with the first template only
function boundedInterpreter(values: Values): Interpreter {
  const { Interpreter, Environment } = jinjaLibrary();
  const constant = (value: Value): Node => ({ type: 'Constant', value });
  const stripped = (text: Value, side: Side, [characters]: Value[]): Value => {
    const none = characters === undefined || characters.type === 'NullValue';
    return new values.String(
      strip(text.value as string, side, none ? undefined : textOf(characters, 'the characters to strip')),
    );
  };

  return class BoundedInterpreter extends Interpreter {
    readonly #budget: Budget;
    readonly #costs: Costs;
    /** The value whose method a function is, and the method's name. */
    readonly #owners = new WeakMap<Value, { owner: Value; name: unknown }>();

    constructor(scope: Scope, budget: Budget) {
      super(scope);
      this.#budget = budget;
      this.#costs = new Costs(budget);
    }

    override evaluate(node: Node | undefined, scope: Scope): Value {
      this.#budget.enter();
      try {
        switch (node?.type) {
          case 'Constant':
            return node.value as Value;
          case 'Break':
          case 'Continue':
            throw new LoopExit(node.type);
          // The library looks through the whole body each time it comes to one of these.
          case 'Macro':
          case 'CallStatement':
            this.#budget.spend(countNodes(node) * ELEMENT);
        }
        return super.evaluate(node, scope);
      } finally {
        this.#budget.leave();
      }
    }

    override evaluateBlock(nodes: Node[], scope: Scope): Value {
      let text = '';
      try {
        for (const node of nodes) {
          const value = this.evaluate(node, scope);
          if (value.type === 'NullValue' || value.type === 'UndefinedValue') continue;
          text = this.#concatenate(text, this.#text(value));
        }
      } catch (error) {
        if (error instanceof LoopExit) error.text = this.#concatenate(text, error.text);
        throw error;
      }
      return new values.String(text);
    }

    override evaluateFor(node: Node, scope: Scope): Value {
      const { loopvar, iterable, body, defaultBlock } = node as unknown as {
        loopvar: Node;
        iterable: Node;
        body: Node[];
        defaultBlock: Node[];
      };
      const filtered = iterable.type === 'SelectExpression';
      const items = this.#items(this.evaluate(filtered ? (iterable.lhs as Node) : iterable, scope)).filter((item) => {
        return (
          !filtered ||
          this.evaluate(iterable.test as Node, bind(new Environment(scope), loopvar, item)).__bool__().value
        );
      });

      let text = '';
      let completed = false;
      for (const [index, item] of items.entries()) {
        this.#budget.count();
        const inner = bind(new Environment(scope), loopvar, item);
        inner.setVariable('loop', loopOf(items, index));
        try {
          text = this.#concatenate(text, this.evaluateBlock(body, inner).value as string);
        } catch (error) {
          if (!(error instanceof LoopExit)) throw error;
          text = this.#concatenate(text, error.text);
          if (error.kind === 'Break') break;
          continue;
        }
        completed = true;
      }
      // As in Jinja, an iteration that was cut short does not count: after only such iterations, the loop's
      // `else` is rendered.
      return new values.String(
        completed ? text : this.#concatenate(text, this.evaluateBlock(defaultBlock, scope).value as string),
      );
    }

    /** Looks a variable up. The library throws an error, and catches it, for each one that is not defined. */
    override evaluateIdentifier(node: Node, scope: Scope): Value {
      for (let at: Scope | undefined = scope; at; at = at.parent) {
        const value = at.variables.get(node.value as string);
        if (value) return value;
      }
      return new values.Undefined();
    }

    override evaluateBinaryExpression(node: Node, scope: Scope): Value {
      const operator = (node.operator as { value: string }).value;
      if (operator === 'and' || operator === 'or') return super.evaluateBinaryExpression(node, scope);
      const left = this.evaluate(node.left as Node, scope);
      const right = this.evaluate(node.right as Node, scope);
      switch (operator) {
        case '==':
        case '!=':
          return new values.Boolean(this.#equal(left, right) === (operator === '=='));
        case '~': {
          const [start, end] = [left, right].map((value) =>
            value.type === 'NullValue' ? 'None' : value.type === 'UndefinedValue' ? '' : this.#text(value),
          );
          return new values.String(this.#concatenate(start!, end!));
        }
        case '*':
          if (isText(left) && right.type === 'IntegerValue')
            return new values.String(this.#repeat(left.value, right.value as number));
          break;
        case '+':
          if (isText(left) || isText(right)) {
            const other = isText(left) ? right : left;
            if (isList(other) || isMap(other))
              throw new Error(`a text and ${isList(other) ? 'a list' : 'an object'} cannot be added`);
            const lengths = [String(left.value).length, String(right.value).length] as const;
            this.#budget.makeText(lengths[0] + lengths[1], Math.min(...lengths));
          } else if (isList(left) && isList(right))
            this.#budget.spend((left.value.length + right.value.length) * ELEMENT);
          break;
        case 'in':
        case 'not in':
          if (isList(right))
            return new values.Boolean(right.value.some((item) => this.#equal(item, left)) === (operator === 'in'));
          if (isText(left) && isText(right)) this.#costs.search(right.value, left.value);
          break;
        default:
          if (isText(left) && isText(right)) this.#budget.spend(Math.min(left.value.length, right.value.length));
      }
      return super.evaluateBinaryExpression({ ...node, left: constant(left), right: constant(right) }, scope);
    }

    override evaluateMemberExpression(node: Node, scope: Scope): Value {
      const owner = this.evaluate(node.object as Node, scope);
      const property = node.property as Node;
      if (property.type === 'SliceExpression') {
        if (isText(owner)) this.#budget.spend(owner.value.length * ELEMENT);
        else if (isList(owner)) this.#budget.spend(owner.value.length);
      }
      let member = super.evaluateMemberExpression({ ...node, object: constant(owner) }, scope);
      const side = isText(owner) && Object.hasOwn(SIDES, String(property.value)) && SIDES[String(property.value)];
      if (side && member.type === 'FunctionValue')
        member = new values.Function((args: Value[]) => stripped(owner, side, args));
      if (member.type === 'FunctionValue') this.#owners.set(member, { owner, name: property.value });
      return member;
    }

    override evaluateCallExpression(node: Node, scope: Scope): Value {
      const called = this.evaluate(node.callee as Node, scope);
      const [args, named] = this.evaluateArguments(node.args as Node[], scope);
      const method = this.#owners.get(called);
      if (method) this.#costs.spendOn(String(method.name), method.owner, args, named);
      return super.evaluateCallExpression({ ...node, callee: constant(called), args: constants(args, named) }, scope);
    }

    override applyFilter(operand: Value, filter: Node, scope: Scope): Value {
      if (filter.type !== 'CallExpression') {
        this.#costs.spendOn(String(filter.value), operand, [], new Map());
        if (filter.value === 'trim' && isText(operand)) return stripped(operand, 'both', []);
        return super.applyFilter(operand, filter, scope);
      }
      const nodes = filter.args as Node[];
      const [args, named] = this.evaluateArguments(nodes, scope);
      const name = String((filter.callee as Node).value);
      this.#costs.spendOn(name, operand, args, named);
      if (name === 'trim' && isText(operand))
        return stripped(operand, 'both', [...args, ...named.values()].slice(0, 1));
      // Some filters check that their arguments are literals.
      const literal = nodes.every(({ type }) => type === 'StringLiteral');
      return super.applyFilter(operand, literal ? filter : { ...filter, args: constants(args, named) }, scope);
    }

    #items(value: Value): Value[] {
      if (value.type === 'UndefinedValue') return [];
      if (isList(value)) return value.value;
      if (isText(value)) throw new TextLoopError('a loop goes over a text; a list or an object is expected');
      if (value.type !== 'ObjectValue')
        throw new Error(
          `a loop goes over ${value.type === 'NullValue' ? 'none' : `a ${value.type}`}; a list or an object is ` +
            'expected',
        );
      return [...(value.value as Map<string, Value>).keys()].map((key) => new values.String(key));
    }

    #equal(a: Value, b: Value): boolean {
      return equal(a, b, () => this.#budget.count());
    }

    /** A value as a template prints it. */
    #text(value: Value): string {
      if (isList(value) || isMap(value)) this.#budget.makeText(this.#costs.measure(value));
      return value.toString();
    }

    #concatenate(start: string, end: string): string {
      if (start === '' || end === '') return start + end;
      this.#budget.makeText(start.length + end.length, Math.min(start.length, end.length));
      return start + end;
    }

    #repeat(text: string, count: number): string {
      this.#budget.makeText(text.length * Math.max(0, count));
      return text.repeat(Math.max(0, count));
    }
  };

  function constants(args: Value[], named: ReadonlyMap<string, Value>): Node[] {
    const keywords = [...named].map(([key, value]) => ({
      type: 'KeywordArgumentExpression',
      key: { type: 'Identifier', value: key },
      value: constant(value),
    }));
    return [...args.map(constant), ...keywords];
  }

  /** Sets a loop's variables in a scope, and returns the scope. */
  function bind(scope: Scope, target: Node, item: Value): Scope {
    if (target.type === 'Identifier') {
      scope.setVariable(target.value as string, item);
      return scope;
    }
    const targets = target.value as Node[];
    if (!isList(item) || item.value.length !== targets.length)
      throw new Error(
        `a loop takes ${targets.length} values at a time from what has ${isList(item) ? item.value.length : 'none'}`,
      );
    for (const [index, inner] of targets.entries()) bind(scope, inner, item.value[index]!);
    return scope;
  }

  function loopOf(items: Value[], index: number): Value {
    const { length } = items;
    const number = (value: number): Value => new values.Integer(value);
    const boolean = (value: boolean): Value => new values.Boolean(value);
    const item = (at: number): Value => items[at] ?? new values.Undefined();
    return new values.Object(
      new Map(
        Object.entries({
          index: number(index + 1),
          index0: number(index),
          revindex: number(length - index),
          revindex0: number(length - index - 1),
          length: number(length),
          first: boolean(index === 0),
          last: boolean(index === length - 1),
          previtem: item(index - 1),
          nextitem: item(index + 1),
        }),
      ),
    );
  }
}

/**
 * The text of a value that has to be a text. A list is refused, because its text may be longer than any that can be
 * made.
 */
function textOf(value: Value | undefined, what: string): string {
  if (isText(value)) return value.value;
  throw new Error(`${what} is no text`);
}

const counted = new WeakMap<Node, number>();

function countNodes(node: Node): number {
  let count = counted.get(node);
  if (count === undefined) {
    count = 1;
    const visit = (value: unknown): void => {
      if (typeof value !== 'object' || value === null) return;
      count!++;
      for (const child of value instanceof Map ? [...value].flat() : Object.values(value)) visit(child);
    };
    visit(node);
    counted.set(node, count);
  }
  return count;
}
