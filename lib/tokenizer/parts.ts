/** Rank of each merge by `JSON.stringify([left, right])`; the lowest merges first, the leftmost of equals. */
export type MergeRanks = Map<string, number>;

/** What a tokenizer is built from, whatever file it came from. */
export interface TokenizerParts {
  /** As in tokenizer.json. */
  json: unknown;
  /** As in tokenizer_config.json. */
  config: Record<string, unknown>;
  /** As in generation_config.json. */
  generationConfig: Record<string, unknown>;
  /** Pieces by id where several ids may share one; else those of `json`. */
  pieces?: readonly string[];
  /** Ranks of merges where several share one; else those of `json`. */
  ranks?: MergeRanks;
}
