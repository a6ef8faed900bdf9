import { BudgetError, type Budget } from './budget.js';
import { isList, isMap, isText, type Value } from './library.js';

/** The cost of one element of a list, in characters. */
export const ELEMENT = 16;
// The engine's search compares at each place of a text for as long as it agrees: 32 characters in the time that one
// takes elsewhere.
const COMPARED_AT_ONCE = 32;
const MAX_INDENT = 64;
/** Filters and methods whose time does not depend on the length of what they are given. */
const CHEAP = new Set(['length', 'first', 'last', 'list', 'get', 'default', 'safe']);

/** Spends from a budget what the library's filters, methods and operators are about to cost. */
export class Costs {
  constructor(private readonly budget: Budget) {}

  /** Spends what a filter or method is about to cost. `owner`: the value that it is applied to. */
  spendOn(name: string, owner: Value, args: Value[], named: ReadonlyMap<string, Value>): void {
    if (CHEAP.has(name)) return;
    const argument = (index: number, key: string): unknown => (args[index] ?? named.get(key))?.value;
    if (isText(owner)) {
      const text = owner.value;
      this.budget.spend(text.length * (name === 'title' ? ELEMENT : 1));
      if (name === 'split') {
        const separator = argument(0, 'sep');
        if (typeof separator === 'string') this.budget.spend(this.count(text, separator) * ELEMENT);
        else this.budget.spend((text.length / 2) * ELEMENT);
      } else if (name === 'replace') {
        const [old, by] = [argument(0, 'old'), argument(1, 'new')];
        if (typeof old === 'string' && typeof by === 'string')
          this.budget.makeText(text.length + this.count(text, old) * by.length);
      } else if (name === 'indent') {
        this.indent(argument(0, 'width'));
        this.budget.makeText(text.length + this.count(text, '\n') * MAX_INDENT);
      } else if (name === 'join') this.budget.makeText(text.length * (ELEMENT + textLength(argument(0, 'separator'))));
      else if (name === 'tojson') this.budget.makeText(text.length * 6);
    } else if (isList(owner) || isMap(owner)) {
      const count = isList(owner) ? owner.value.length : owner.value.size;
      this.budget.spend(count * ELEMENT);
      if (name === 'tojson' || name === 'string' || name === 'join') {
        const separators = named.get('separators');
        const between =
          textLength(argument(0, 'separator')) +
          (separators && isList(separators)
            ? separators.value.reduce((sum, { value }) => sum + textLength(value), 0)
            : 0);
        this.budget.makeText(this.measure(owner, { between, indent: this.indent(named.get('indent')?.value) }));
      } else if (name === 'sort' || name === 'dictsort')
        this.budget.spend(this.measure(owner) * Math.ceil(Math.log2(count + 2)));
    }
  }

  private indent(width: unknown): number {
    if (width === undefined || width === null) return 0;
    if (typeof width === 'number' && width <= MAX_INDENT) return Math.max(0, width);
    throw new BudgetError(`it indents by ${String(width)}, more than ${MAX_INDENT}`);
  }

  /** Spends what a search for one text in another costs. */
  search(text: string, part: string): void {
    this.budget.spend(text.length * (1 + part.length / COMPARED_AT_ONCE));
  }

  /** How often `part` stands in the text, without overlaps. */
  private count(text: string, part: string): number {
    if (part === '') return text.length + 1;
    this.search(text, part);
    let count = 0;
    for (let at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + part.length)) count++;
    return count;
  }

  /**
   * About how long a value is in JSON. Spends what the measuring costs. A value that occurs several times in another
   * counts each time.
   */
  measure(value: Value, layout = { between: 0, indent: 0 }, depth = 0): number {
    this.budget.spend(ELEMENT);
    if (isText(value)) return value.value.length + 2;
    const margin = 4 + layout.between + layout.indent * depth;
    let length = margin;
    if (isList(value)) for (const item of value.value) length += margin + this.measure(item, layout, depth + 1);
    else if (isMap(value))
      for (const [key, item] of value.value) length += margin + key.length + this.measure(item, layout, depth + 1);
    else length += 20;
    return length;
  }
}

function textLength(value: unknown): number {
  return typeof value === 'string' ? value.length : 0;
}
