import { CqilError } from '../errors.js';

const QUOTED_CHARACTERS = 60;

/** An INVALID_TOKENIZER error; the message is one sentence. */
export function invalidTokenizer(message: string, cause?: unknown): CqilError {
  return new CqilError('INVALID_TOKENIZER', message, cause === undefined ? undefined : { cause });
}

/** A value for a message: quoted, and shortened, because files may hold anything. */
export function quote(value: unknown): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch {
    text = undefined;
  }
  // Too long or too deep for a message, or without a spelling in JSON.
  text ??= typeof value === 'object' ? 'an object' : String(value);
  return text.length > QUOTED_CHARACTERS ? `${text.slice(0, QUOTED_CHARACTERS)}…` : text;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
