import { types } from 'node:util';

/**
 * Gives values that the addon made as instances of the classes in this module's realm. Jest and node:vm run modules in
 * realms of their own, each with its own Array and Float32Array. There the addon's values belong to another realm and
 * are copied; elsewhere they are returned as they are.
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
