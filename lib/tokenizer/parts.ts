/**
 * The rank at which two neighbouring pieces merge, undefined where they do not; the lowest merges first, the leftmost
 * of equals. `joint`: both together; `cut`: the length of the left one. Ranks are integers below 2²³.
 */
export type MergeRank = (joint: string, cut: number) => number | undefined;

/** Pieces or merges taken between two looks at the clock: a tenth of a millisecond or so. */
export const PIECES_AT_ONCE = 256;

/** What a tokenizer is built from, whatever file it came from. */
export interface TokenizerParts {
  /**
   * As in tokenizer.json; the model's vocabulary may be a Map, and its merges a MergeRank, or iterable and of a known
   * length.
   */
  json: unknown;
  /** As in tokenizer_config.json. */
  config: Record<string, unknown>;
  /** As in generation_config.json. */
  generationConfig: Record<string, unknown>;
  /** Pieces by id where several ids may share one; else those of `json`. */
  pieces?: string[];
}
