import { library } from '../library.js';

/** What the published patterns of GPT-4's family begin with, which ignores case. */
const CONTRACTIONS = [
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
  "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
] as const;

// Characters and general categories, alone, in classes and in groups, and looks ahead: what means the same in both
// syntaxes once \s and \S are spelled out. One quantifier after another is no part of it.
const CHARACTER = String.raw`[A-Za-z0-9 '"]|\\[rnsS]|\\[pP]\{[LMNPSZC][a-z]?\}`;
const CLASS = String.raw`\[\^?(?:[A-Za-z0-9]-[A-Za-z0-9]|/|${CHARACTER})+\]`;
const QUANTIFIER = String.raw`(?:[*+?]|\{\d+(?:,\d*)?\})(?![*+?{])`;
const PLAIN = new RegExp(`^(?:${CHARACTER}|${CLASS}|\\(\\?[:!=]|\\)|\\||(?<![(|:!=]|^)${QUANTIFIER})+$`);

/**
 * Translates a pattern from Oniguruma's syntax to that of JavaScript with the flag u, as the reference library's
 * JavaScript does. Most published patterns need little of that, and the library, which takes Node.js longer to load
 * than most of cqil, is loaded for the others. Throws what the library throws.
 */
export function fromOniguruma(pattern: string): string {
  return plainTranslation(pattern) ?? libraryTranslation(pattern);
}

/** The translation of a pattern that is plain; undefined for others. */
export function plainTranslation(pattern: string): string | undefined {
  const parts = pattern.split(CONTRACTIONS[0]);
  if (!parts.every((part) => part === '' || PLAIN.test(`x${part}`))) return undefined;
  const spelled = parts.map((part) => part.replaceAll('\\s', '\\p{White_Space}').replaceAll('\\S', '\\P{White_Space}'));
  const source = spelled.join(CONTRACTIONS[1]);
  try {
    return new RegExp(source, 'u').source;
  } catch {
    return undefined;
  }
}

export function libraryTranslation(pattern: string): string {
  const { pattern: translated } = new (library().SplitPreTokenizer)({
    type: 'Split',
    pattern: { Regex: pattern },
    behavior: 'Isolated',
    invert: true,
  });
  return translated!.source;
}
