import { toByteLevel } from './byte_level.js';
import { invalidTokenizer, isObject, quote } from './invalid.js';
import { library } from './library.js';
import { flattenSequence, type Component } from './tokenizer_json.js';

/** Cuts text into the words that are encoded each by itself. `atStart`: the text begins where the whole text begins. */
export type PreTokenizer = (text: string, atStart: boolean) => Iterable<string>;

/** How GPT-2 cuts text; the default of `ByteLevel`. */
export const GPT2_PATTERN = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

const METASPACE = '▁';

/**
 * The pre-tokenizer of a tokenizer.json. Words come one at a time as they are asked for, so that a long text can be
 * encoded in slices; the library's own would cut the whole text in one go. Throws INVALID_TOKENIZER for unknown types.
 */
export function createPreTokenizer(config: Component | null): PreTokenizer {
  const stages = config === null ? [] : flattenSequence(config, 'pretokenizers').flatMap(stagesOf);
  return (text, atStart) => run(stages, 0, text, atStart);
}

function* run(stages: PreTokenizer[], index: number, text: string, atStart: boolean): Generator<string> {
  const stage = stages[index];
  if (stage === undefined) {
    yield text;
    return;
  }
  let first = atStart;
  for (const word of stage(text, atStart)) {
    yield* run(stages, index + 1, word, first);
    first = false;
  }
}

function stagesOf(config: Component): PreTokenizer[] {
  switch (config.type) {
    case 'Split':
      return [splitStage(config)];
    case 'Digits':
      return [isolate(config.individual_digits === true ? /\p{N}/gu : /\p{N}+/gu)];
    case 'ByteLevel':
      return byteLevelStages(config);
    case 'Metaspace':
      return [metaspaceStage(config)];
    default:
      throw invalidTokenizer(
        `The pre-tokenizer is of type ${quote(config.type)}; expected Sequence, Split, Digits, ByteLevel or Metaspace.`,
      );
  }
}

function splitStage(config: Component): PreTokenizer {
  const { pattern, behavior = 'Isolated', invert = false } = config;
  const isPattern = isObject(pattern) && (typeof pattern.Regex === 'string' || typeof pattern.String === 'string');
  if (!isPattern) throw invalidTokenizer(`A pre-tokenizer splits on ${quote(pattern)}; expected a Regex or a String.`);
  if (behavior === 'Isolated') return isolate(compile(pattern));
  if (behavior === 'Removed' && invert === true) return matches(compile(pattern));
  throw invalidTokenizer(`A pre-tokenizer splits with the behavior ${quote(behavior)}; expected "Isolated".`);
}

function compile(pattern: Record<string, unknown>): RegExp {
  let compiled: RegExp | null;
  try {
    compiled = new (library().SplitPreTokenizer)({ type: 'Split', pattern, behavior: 'Isolated', invert: true }).pattern;
  } catch (cause) {
    throw invalidTokenizer(`A pre-tokenizer's pattern ${quote(pattern)} cannot be compiled: ${(cause as Error).message}`, cause);
  }
  if (compiled === null) throw invalidTokenizer(`A pre-tokenizer's pattern ${quote(pattern)} cannot be compiled.`);
  return compiled;
}

/** Words are the matches of a pattern and the stretches between them. */
function isolate(pattern: RegExp): PreTokenizer {
  return function* (text) {
    let start = 0;
    for (const match of text.matchAll(pattern)) {
      if (match.index > start) yield text.slice(start, match.index);
      if (match[0] !== '') yield match[0];
      start = match.index + match[0].length;
    }
    if (start < text.length) yield text.slice(start);
  };
}

/** Words are the matches of a pattern; what lies between them is dropped. */
function matches(pattern: RegExp): PreTokenizer {
  return function* (text) {
    for (const match of text.matchAll(pattern)) if (match[0] !== '') yield match[0];
  };
}

function byteLevelStages(config: Component): PreTokenizer[] {
  const stages: PreTokenizer[] = [];
  if (config.add_prefix_space === true) stages.push((text) => [text.startsWith(' ') ? text : ` ${text}`]);
  if (config.use_regex !== false) stages.push(isolate(compile({ Regex: GPT2_PATTERN })));
  stages.push((word) => [toByteLevel(word)]);
  return stages;
}

function metaspaceStage(config: Component): PreTokenizer {
  const { replacement = METASPACE } = config;
  if (typeof replacement !== 'string' || replacement === '') {
    throw invalidTokenizer(`A Metaspace pre-tokenizer replaces spaces with ${quote(replacement)}; expected a character.`);
  }
  const scheme = config.prepend_scheme ?? (config.add_prefix_space === false ? 'never' : 'always');
  return function* (text, atStart) {
    let spaced = text.replaceAll(' ', replacement);
    const prepends = scheme === 'always' || (scheme === 'first' && atStart);
    if (prepends && !spaced.startsWith(replacement)) spaced = replacement + spaced;
    if (config.split === false) {
      yield spaced;
      return;
    }
    // Each replacement character begins a word.
    let start = 0;
    for (let next = spaced.indexOf(replacement, 1); next !== -1; next = spaced.indexOf(replacement, next + 1)) {
      yield spaced.slice(start, next);
      start = next;
    }
    yield spaced.slice(start);
  };
}
