import { types } from 'node:util';

/**
 * What the addon made, as values of the realm this module runs in. Jest and node:vm give modules a realm of their own, with an Array and a
 * Float32Array of its own, of which the addon's values are no instances; such values are copied. Elsewhere they are given as they are.
 */
export function inThisRealm<T>(value: T): T;
export function inThisRealm(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || value instanceof Object) return value;
  if (types.isFloat32Array(value)) return new Float32Array(value);
  if (types.isFloat64Array(value)) return new Float64Array(value);
  if (types.isInt32Array(value)) return new Int32Array(value);
  if (Array.isArray(value)) return Array.from(value, inThisRealm);
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, inThisRealm(each)]));
}
