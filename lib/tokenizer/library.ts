// The library's own declarations import without file extensions, which a Node-style resolution cannot follow: what cqil
// uses of the library is declared here.

interface Library {
  /** Translates Oniguruma's syntax to JavaScript's. */
  SplitPreTokenizer: new (config: { type: 'Split'; pattern: unknown; behavior: 'Isolated'; invert: true }) => {
    pattern: RegExp | null;
  };
}

/** Loaded with the first pattern that needs it, see patterns/oniguruma.ts. */
export function library(): Library {
  return require('@huggingface/tokenizers') as unknown as Library;
}
