import { CqilError } from '../errors.js';

const QUOTED_CHARACTERS = 60;

/** An INVALID_TOKENIZER error; the message is one sentence. */
export function invalidTokenizer(message: string, cause?: unknown): CqilError {
  return new CqilError('INVALID_TOKENIZER', message, cause === undefined ? undefined : { cause });
}

/**
 * A value for a message: as in JSON, and shortened, because files may hold anything. Only the part that is shown is
 * spelled out.
 */
export function quote(value: unknown): string {
  let text: string;
  try {
    text = spell(value, QUOTED_CHARACTERS + 1);
  } catch {
    return 'an object that cannot be read'; // a proxy, or getters that throw
  }
  return text.length > QUOTED_CHARACTERS ? `${text.slice(0, QUOTED_CHARACTERS)}…` : text;
}

/** A value in JSON, cut off soon after `room` characters. */
function spell(value: unknown, room: number): string {
  if (typeof value === 'string') return JSON.stringify(value.slice(0, room));
  if (typeof value === 'number' || typeof value === 'boolean' || value === null) return String(value);
  if (typeof value !== 'object') return String(value).slice(0, room);
  if (Array.isArray(value) || ArrayBuffer.isView(value)) {
    const list = value as ArrayLike<unknown>;
    let text = '[';
    for (let i = 0; i < list.length && text.length < room; i++)
      text += `${i > 0 ? ',' : ''}${spell(list[i], room - text.length)}`;
    return `${text}]`;
  }
  let text = '{';
  for (const key in value) {
    if (text.length >= room) break;
    text += `${text.length > 1 ? ',' : ''}${JSON.stringify(key.slice(0, room))}:`;
    text += spell((value as Record<string, unknown>)[key], room - text.length);
  }
  return `${text}}`;
}

/** The value if it is an object, else an empty object. */
export function objectOf(value: unknown): Record<string, unknown> {
  return isObject(value) ? value : {};
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
