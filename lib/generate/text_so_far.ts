import type { StopMatcher } from './stop.js';
import type { Detokenizer } from '../tokenizer/index.js';

/**
 * `eos`: the model ended its text. `stop`: a stop string was found. `length`: `maxTokens` was reached. `context`: the
 * context is full.
 */
export type FinishReason = 'eos' | 'stop' | 'length' | 'context';

/** What the text of a generation is made with. */
export interface TextParts {
  detokenizer: Pick<Detokenizer, 'push' | 'flush'> | undefined;
  stops: StopMatcher;
  /** Whether a token has text. */
  isText(token: number): boolean;
  eosTokenIds: readonly number[];
  /** Tokens there is room for, and tokens that were asked for. */
  most: number;
  maxTokens: number;
}

/** The tokens of a generation and their text: what of it may be shown, and with which token it ends, and why. */
export class TextSoFar {
  /** What has been shown. */
  text = '';
  readonly tokens: number[] = [];
  readonly #parts: TextParts;

  constructor(parts: TextParts) {
    this.#parts = parts;
  }

  /** Adds a token. Gives the text that became certain with it, and why the generation ends, where it does. */
  push(token: number): { text: string; finishReason?: FinishReason } {
    const { detokenizer, stops, isText, eosTokenIds, most, maxTokens } = this.#parts;
    this.tokens.push(token);
    const eos = eosTokenIds.includes(token);
    let finishReason: FinishReason | undefined;
    if (eos) finishReason = 'eos';
    else if (this.tokens.length >= most) finishReason = this.tokens.length >= maxTokens ? 'length' : 'context';
    let piece = (eos ? '' : detokenizer?.push(token)) ?? '';
    if (finishReason) piece += detokenizer?.flush() ?? '';
    const shown = stops.push(piece, isText(token) ? undefined : token);
    if (shown.stopped) finishReason = 'stop';
    else if (finishReason) shown.text += stops.flush();
    this.text += shown.text;
    return { text: shown.text, finishReason };
  }
}
