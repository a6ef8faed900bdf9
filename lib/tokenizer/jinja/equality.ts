import { isList, isMap, type Value } from './library.js';

/**
 * Whether two values are equal as in Python: lists, tuples and objects by what they hold, and true and false are 1 and
 * 0. `count` is called for each pair of values that is compared.
 */
export function equal(a: Value, b: Value, count: () => void): boolean {
  count();
  if (isNumber(a) && isNumber(b)) return Number(a.value) === Number(b.value);
  if (a.type !== b.type) return false;
  if (a === b) return true;
  if (a.type === 'ObjectValue' && isMap(a) && isMap(b)) {
    if (a.value.size !== b.value.size) return false;
    for (const [key, item] of a.value) {
      const other = b.value.get(key);
      if (!other || !equal(item, other, count)) return false;
    }
    return true;
  }
  if (isList(a) && isList(b)) {
    if (a.constructor !== b.constructor || a.value.length !== b.value.length) return false;
    const others = b.value;
    return a.value.every((item, index) => equal(item, others[index]!, count));
  }
  if (typeof a.value === 'string') return a.value === b.value;
  // None is None, and what is undefined is undefined. Functions and namespaces are equal to themselves only.
  return a.type === 'NullValue' || a.type === 'UndefinedValue';
}

function isNumber({ type }: Value): boolean {
  return type === 'IntegerValue' || type === 'FloatValue' || type === 'BooleanValue';
}
