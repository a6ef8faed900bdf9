/** 16 hexadecimal digits that tell values apart by their JSON. */
export function digest(value: unknown): string {
  // Loaded with the first value: it takes longer than the rest of a model's modules, and weights are being read by
  // then.
  const { createHash } = require('node:crypto') as typeof import('node:crypto');
  return createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 16);
}
