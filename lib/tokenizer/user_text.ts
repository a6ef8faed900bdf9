import { randomInt } from '../util/random.js';
import type { Rendering } from './chat_template.js';
import { strip } from './jinja/strip.js';
import { TimeError } from './jinja/budget.js';
import { isHighSurrogate, isLowSurrogate } from './surrogates.js';
import { insertText, type TrieNode } from './trie.js';

// Unicode's plane 15, for private use, has as many characters as there are UTF-16 code units. To mark a unit of a
// message's text, it is replaced with the character of its number in that plane.
const PLANE = 0xf0000;
const MARKED = /[\u{F0000}-\u{FFFFF}]/gu;
// Characters that are not marked: a template that trims, splits or writes JSON would treat their marks differently, and
// those beyond the first plane stay whole.
const LEFT_AS_IS = /[\s"\\\p{Cc}]|[\u{10000}-\u{EFFFF}\u{100000}-\u{10FFFF}]/u;
/** A mark in JSON that is limited to ASCII: the two escaped halves of a character of that plane. */
const ESCAPED_MARK = /\\u[dD][bB][89abAB][0-9a-fA-F]\\u[dD][c-fC-F]/;
/** Fields that templates compare rather than show. */
const STRUCTURE = ['role', 'type'];
/** Characters that control tokens have and names do not. */
const UNUSUAL = /[^\w\s.,:;/-]/gu;
const GUARD_LENGTH = 8;
const CHARACTERS_AT_ONCE = 4096;

/** A text, and which of its UTF-16 code units came from messages. */
export interface UserText {
  text: string;
  fromUser: Uint8Array;
}

/** Finds the texts of control tokens. */
export class ControlTexts {
  readonly #root: TrieNode<true> = { next: new Map() };

  constructor(readonly texts: readonly string[]) {
    for (const text of texts) insertText(this.#root, text, true);
  }

  /** Where the control tokens' texts end that begin at a place of a text. */
  endsFrom(text: string, place: number): number[] {
    const ends: number[] = [];
    let node = this.#root.next.get(text.charCodeAt(place));
    for (let end = place + 1; node; end++) {
      if (node.value) ends.push(end);
      node = node.next.get(text.charCodeAt(end));
    }
    return ends;
  }

  /** Whether a control token's text begins at a place of a text and ends in it, or is cut short at `textEnd`. */
  beginsAt(text: string, place: number, textEnd: number): boolean {
    let node = this.#root.next.get(text.charCodeAt(place));
    for (let end = place + 1; node && !node.value; end++) {
      if (end === textEnd) return true;
      node = node.next.get(text.charCodeAt(end));
    }
    return node !== undefined;
  }
}

/**
 * Renders again with marks in what came from messages, tools and variables, to tell it from the template's own text.
 *
 * First only the beginning of each control token's text is marked, so that a template finds no control token in a
 * message. Then every character is marked: if the text comes out the same, this also shows control tokens that are put
 * together from several texts. A template that looks into messages, to split them or change their case, may render
 * another text then; only the first marks count for it.
 */
export function* renderUserText(rendering: Rendering, controls: ControlTexts): Generator<void, UserText> {
  yield;
  let holdsControls = false;
  const marked = yield* renderAgain(rendering, function* (part) {
    const result = yield* markControls(part, controls);
    holdsControls ||= result !== part;
    return result;
  });
  const plain = { text: rendering.text, fromUser: new Uint8Array(rendering.text.length) };
  const seen = holdsControls ? yield* unmark(marked()) : plain;
  // A template that escapes what is not ASCII changes the marks. Control tokens from its messages are found later, by
  // their ids.
  const { text, fromUser } = ESCAPED_MARK.test(seen.text) && !ESCAPED_MARK.test(rendering.text) ? plain : seen;
  yield;
  const everything = yield* renderAgain(rendering, (part, isShown) =>
    isShown ? markAll(part) : markControls(part, controls),
  );
  const rendered = orUndefined(everything);
  if (rendered === undefined) return { text, fromUser };
  yield;
  const found = yield* unmark(rendered);
  if (found.text !== text) return { text, fromUser };
  for (let place = 0; place < fromUser.length; place++) {
    fromUser[place]! |= found.fromUser[place]!;
    if (place % CHARACTERS_AT_ONCE === 0) yield;
  }
  return { text, fromUser };
}

/**
 * Renders messages that say next to nothing, which shows the template's own control tokens and no others. Undefined if
 * the template does not accept such messages. The real messages must give the same control tokens, however a template
 * or a normalizer changes texts.
 */
export function* renderWithoutTexts(rendering: Rendering): Generator<void, string | undefined> {
  const rendered = yield* renderAgain(rendering, function* (part, isShown) {
    yield;
    if (!isShown) return part.replace(UNUSUAL, '_');
    return /\S/.test(part) ? 'x' : part;
  });
  yield;
  return orUndefined(rendered);
}

/** What a rendering gives; undefined if the template does not accept such texts. */
function orUndefined(render: () => string): string | undefined {
  try {
    return render();
  } catch (error) {
    if (error instanceof TimeError) throw error;
    return undefined;
  }
}

/** Replaces a text in short slices. `isShown`: in messages and tools, and not under a name that templates compare. */
type Replace = (text: string, isShown: boolean) => Generator<void, string>;

/** Gives a way to render again, with other texts in place of those from outside. */
function renderAgain(rendering: Rendering, replace: Replace): Generator<void, () => string> {
  return rendering.again(function* (value, name) {
    if (isTokenName(name)) return value;
    const shown = name === 'messages' || name === 'tools';
    return yield* mapTexts(value, (text, isStructure) => replace(text, shown && !isStructure));
  });
}

/** Whether a variable names a token: a program that gives `bos_token` means the token. */
function isTokenName(name: string): boolean {
  return /_tokens?$/.test(name);
}

/**
 * A copy of a value with every text in it replaced, keys included. `isStructure`: under a name that templates compare,
 * or itself a key.
 */
function* mapTexts<T>(value: T, replace: Replace, isStructure = false): Generator<void, T> {
  if (typeof value === 'string') return (yield* replace(value, isStructure)) as T;
  if (typeof value !== 'object' || value === null) return value;
  yield;
  if (Array.isArray(value)) {
    const items: unknown[] = [];
    for (const item of value) items.push(yield* mapTexts(item as unknown, replace, isStructure));
    return items as T;
  }
  const entries: Array<[string, unknown]> = [];
  for (const [key, child] of Object.entries(value))
    entries.push([yield* replace(key, true), yield* mapTexts(child as unknown, replace, STRUCTURE.includes(key))]);
  return Object.fromEntries(entries) as T;
}

function mark(unit: string): string {
  return String.fromCodePoint(PLANE + unit.charCodeAt(0));
}

function* markControls(text: string, controls: ControlTexts): Generator<void, string> {
  // The rest of a control token may follow in the next message if a template trims this one.
  const end = strip(text, 'right').length;
  let result = '';
  let copied = 0;
  for (let place = 0; place < text.length; place++) {
    if (place % CHARACTERS_AT_ONCE === CHARACTERS_AT_ONCE - 1) yield;
    if (!controls.beginsAt(text, place, end) && !isInPlane(text, place)) continue;
    result += text.slice(copied, place) + mark(text[place]!);
    copied = place + 1;
  }
  return result + text.slice(copied);
}

/** Whether a code unit is half of a character that would itself read as a mark. */
function isInPlane(text: string, place: number): boolean {
  const unit = text.charCodeAt(place);
  if (!isHighSurrogate(unit) && !isLowSurrogate(unit)) return false;
  const point = text.codePointAt(isHighSurrogate(unit) ? place : place - 1) ?? 0;
  return point >= PLANE && point <= PLANE + 0xffff;
}

function* markAll(text: string): Generator<void, string> {
  let result = '';
  let marked: string[] = [];
  for (const character of text) {
    if (LEFT_AS_IS.test(character)) marked.push(character);
    else for (let i = 0; i < character.length; i++) marked.push(mark(character[i]!));
    if (marked.length < CHARACTERS_AT_ONCE) continue;
    result += marked.join('');
    marked = [];
    yield;
  }
  return result + marked.join('');
}

function* unmark(marked: string): Generator<void, UserText> {
  let text = '';
  const places: number[] = [];
  let copied = 0;
  for (const { 0: character, index } of marked.matchAll(MARKED)) {
    text += marked.slice(copied, index);
    places.push(text.length);
    text += String.fromCharCode(character.codePointAt(0)! - PLANE);
    copied = index + character.length;
    if (places.length % CHARACTERS_AT_ONCE === 0) yield;
  }
  text += marked.slice(copied);
  const fromUser = new Uint8Array(text.length);
  for (const [count, place] of places.entries()) {
    fromUser[place] = 1;
    if (count % CHARACTERS_AT_ONCE === 0) yield;
  }
  return { text, fromUser };
}

/**
 * A text with guards: a random string inside each control token's text that came from a user, so that it is not found.
 */
export interface GuardedText {
  text: string;
  guard: string;
}

/**
 * Puts guards into control tokens' texts that came from a user, wholly or in part. Undefined if there are none: then
 * the text can be encoded as it is.
 */
export function* guardUserText(
  { text, fromUser }: UserText,
  controls: ControlTexts,
): Generator<void, GuardedText | undefined> {
  const guard = String.fromCharCode(...Array.from({ length: GUARD_LENGTH }, () => randomInt(0xe000, 0xf900)));
  let guarded = '';
  let copied = 0;
  for (let place = 0; place < text.length; place++) {
    if (place % CHARACTERS_AT_ONCE === 0) yield;
    if (!controls.endsFrom(text, place).some((end) => fromUser.subarray(place, end).includes(1))) continue;
    guarded += text.slice(copied, place + 1) + guard;
    copied = place + 1;
  }
  return copied === 0 ? undefined : { text: guarded + text.slice(copied), guard };
}
