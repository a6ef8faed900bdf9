import { commonPrefix } from '../../util/common_prefix.js';
import type { Tokenizer } from '../../tokenizer/index.js';
import type { TaskItem } from './task_file.js';

/** Token ids of a context and what follows it; those from `start` (≥ 1) on are scored. */
export interface Sequence {
  ids: number[];
  start: number;
}

/** What is computed for one item: a sequence per answer, or the one of a completion. */
export interface EncodedItem {
  sequences: Sequence[];
  /** Characters (Unicode code points) of each answer, which its log-likelihood is divided by. */
  lengths: number[];
  /** Whether the beginning of a context was cut off to fit. */
  truncated: boolean;
}

/**
 * Joins each context and answer as context without trailing white space + `delimiter` + answer without leading white
 * space, and encodes the whole. The tokens after those of the context with the delimiter's words are scored, so white
 * space before the answer and a token across the joint count as answer. What is longer than `contextLength` loses its
 * beginning; undefined when an answer with one token of context does not fit.
 */
export function encodeItem(
  item: TaskItem,
  tokenizer: Tokenizer,
  delimiter: string,
  contextLength: number,
): EncodedItem | undefined {
  const pairs = pairsOf(item);
  const sequences: Sequence[] = [];
  let truncated = false;
  for (const [context, answer] of pairs) {
    const before = encode(tokenizer, (context.trimEnd() + delimiter).trimEnd());
    const ids = encode(tokenizer, joined(context, answer, delimiter));
    const start = Math.max(1, commonPrefix([before, ids]));
    const excess = Math.max(0, ids.length - contextLength);
    if (start - excess < 1) return undefined;
    truncated ||= excess > 0;
    sequences.push({ ids: ids.slice(excess), start: start - excess });
  }
  return { sequences, lengths: pairs.map(([, answer]) => [...answer.trim()].length), truncated };
}

function pairsOf(item: TaskItem): Array<[context: string, answer: string]> {
  switch (item.form) {
    case 'choices':
      return item.choices.map((choice) => [item.query, choice]);
    case 'schema':
      return item.contextOptions.map((context) => [context, item.continuation]);
    case 'completion':
      return [[item.context, item.continuation]];
  }
}

function joined(context: string, answer: string, delimiter: string): string {
  return context.trimEnd() + delimiter + answer.trimStart();
}

function encode(tokenizer: Tokenizer, text: string): number[] {
  return tokenizer.encode(text, { parseSpecialTokens: false });
}
