import { isUtf8 } from 'node:buffer';
import { CqilError, type ErrorCode } from '../errors.js';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPENING_BRACE = 0x7b;
const OPENING_BRACKET = 0x5b;

/**
 * The text of a file's bytes, without a byte order mark. Throws `code` when they are not UTF-8; `source` names the
 * file.
 */
export function utf8Text(bytes: Buffer, source: string, code: ErrorCode): string {
  const mark = bytes.length >= 2 ? bytes.readUInt16BE(0) : 0;
  if (mark === 0xfffe || mark === 0xfeff) throw new CqilError(code, `${source} is UTF-16 text; UTF-8 is expected.`);
  if (!isUtf8(bytes)) throw new CqilError(code, `${source} is not UTF-8 text.`);
  return bytes.toString('utf8').replace(/^\ufeff/, '');
}

/**
 * Parses JSON as Python writes it, where NaN, Infinity and -Infinity are numbers. Throws `code` for malformed JSON;
 * `source` names it.
 */
export function parseJson(json: string, source: string, code: ErrorCode): unknown {
  try {
    return JSON.parse(json);
  } catch (cause) {
    const value = parsePythonNumbers(json);
    if (value !== undefined) return value;
    const problem = json.trim() === '' ? 'it is empty' : jsonProblem(json, (cause as Error).message);
    throw new CqilError(code, `${source} is not valid JSON: ${problem}.`, { cause });
  }
}

/**
 * Counts the arrays and objects in JSON without parsing it. In a file each takes two bytes or more; parsed, they take
 * most of the memory and time.
 */
export function countContainers(bytes: Uint8Array): number {
  let count = 0;
  let inString = false;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at]!;
    if (inString) {
      if (byte === BACKSLASH) at++;
      else if (byte === QUOTE) inString = false;
    } else if (byte === QUOTE) inString = true;
    else if (byte === OPENING_BRACE || byte === OPENING_BRACKET) count++;
  }
  return count;
}

/** Parses JSON whose only fault is Python's numbers; undefined when it has another. */
function parsePythonNumbers(json: string): unknown {
  // 1e999 is valid JSON and becomes Infinity. NaN has no such spelling, so it is a string until everything is parsed.
  const nan = crypto.randomUUID();
  const spelled = replaceOutsideStrings(json, (word) =>
    word === 'NaN' ? `"${nan}"` : word.replace('Infinity', '1e999'),
  );
  if (spelled === json) return undefined;
  try {
    return JSON.parse(
      spelled,
      spelled.includes(nan) ? (_, value: unknown) => (value === nan ? Number.NaN : value) : undefined,
    );
  } catch {
    return undefined;
  }
}

function replaceOutsideStrings(json: string, replace: (word: string) => string): string {
  const parts: string[] = [];
  const quoteOrWord = /"|-?\bInfinity\b|\bNaN\b/g;
  let from = 0;
  for (let match = quoteOrWord.exec(json); match; match = quoteOrWord.exec(json)) {
    if (match[0] === '"') {
      quoteOrWord.lastIndex = endOfString(json, match.index);
      continue;
    }
    parts.push(json.slice(from, match.index), replace(match[0]));
    from = quoteOrWord.lastIndex;
  }
  return parts.length === 0 ? json : parts.join('') + json.slice(from);
}

/** The index after the closing quote of the string that begins at `start`. */
function endOfString(json: string, start: number): number {
  for (let at = start + 1; at < json.length; at++) {
    const unit = json.charCodeAt(at);
    if (unit === BACKSLASH) at++;
    else if (unit === QUOTE) return at + 1;
  }
  return json.length;
}

/**
 * V8's message with the place as line and column, which only newer versions say, after the offset. Some messages quote
 * the place instead.
 */
function jsonProblem(json: string, message: string): string {
  const place = / at position (\d+)(?: \(line \d+ column \d+\))?$/.exec(message);
  if (!place) return message.replace(/ is not valid JSON$/, '');
  const before = json.slice(0, Number(place[1])).split('\n');
  return `${message.slice(0, place.index)} at line ${before.length}, column ${before.at(-1)!.length + 1}`;
}
