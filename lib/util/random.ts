/** As in node:crypto, which takes Node.js longer to load than most of cqil: loaded with the first number. */
export function randomInt(least: number, end: number): number {
  const crypto = require('node:crypto') as typeof import('node:crypto');
  return crypto.randomInt(least, end);
}
