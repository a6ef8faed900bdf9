import { invalidTokenizer, quote } from './invalid.js';
import { GPT2_PATTERN } from './pre_tokenizer.js';

/** How a byte-level vocabulary cuts text before merging, and the rules that come with it. */
export interface PreTokenizerRule {
  /** Patterns applied one after the other, each to the words the ones before it left. */
  patterns: string[];
  /** A word that is itself a piece is taken whole. */
  ignoreMerges?: boolean;
  /** BOS goes before a text unless the file says otherwise. */
  addBos?: boolean;
}

const CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const SPACES = '\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';

/** The pattern of GPT-4's family: digits in groups of up to `digits`. */
function gpt4Pattern(digits: string): string {
  return `${CONTRACTION}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${SPACES}`;
}

const UPPER = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]';
const LOWER = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]';
const TEKKEN_PATTERN =
  `[^\\r\\n\\p{L}\\p{N}]?${UPPER}*${LOWER}+|[^\\r\\n\\p{L}\\p{N}]?${UPPER}+${LOWER}*|` +
  `\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACES}`;

const GPT2: PreTokenizerRule = { patterns: [GPT2_PATTERN] };
const SINGLE_DIGITS: PreTokenizerRule = { patterns: ['\\p{N}', GPT2_PATTERN] };
const QWEN2: PreTokenizerRule = { patterns: [gpt4Pattern('\\p{N}')] };
const LLAMA3: PreTokenizerRule = { patterns: [gpt4Pattern('\\p{N}{1,3}')], ignoreMerges: true, addBos: true };

/** llama.cpp's names, as `tokenizer.ggml.pre` holds them, of the pre-tokenizers that LLaMA-family checkpoints use. */
const RULES: Record<string, PreTokenizerRule> = {
  default: { patterns: ['[\\p{P}\\$\\+<=>\\^~\\|]+', GPT2_PATTERN, '\\p{N}+', '[0-9][0-9][0-9]'] },
  'gpt-2': GPT2,
  'phi-2': GPT2,
  'jina-es': GPT2,
  'jina-de': GPT2,
  gigachat: GPT2,
  mpt: GPT2,
  olmo: GPT2,
  smollm: SINGLE_DIGITS,
  starcoder: SINGLE_DIGITS,
  refact: SINGLE_DIGITS,
  'command-r': SINGLE_DIGITS,
  codeshell: SINGLE_DIGITS,
  exaone: SINGLE_DIGITS,
  'minerva-7b': SINGLE_DIGITS,
  qwen2: QWEN2,
  'deepseek-r1-qwen': QWEN2,
  megrez: QWEN2,
  stablelm2: QWEN2,
  hunyuan: QWEN2,
  'llama-bpe': LLAMA3,
  llama3: LLAMA3,
  'llama-v3': LLAMA3,
  falcon3: LLAMA3,
  pixtral: LLAMA3,
  dbrx: { patterns: LLAMA3.patterns },
  'smaug-bpe': { patterns: LLAMA3.patterns },
  tekken: { patterns: [TEKKEN_PATTERN], ignoreMerges: true, addBos: true },
};

/** The rule of a name. Throws INVALID_TOKENIZER, listing the known names. */
export function preTokenizerRule(name: unknown): PreTokenizerRule {
  const rule = typeof name === 'string' && Object.hasOwn(RULES, name) ? RULES[name] : undefined;
  if (!rule) throw invalidTokenizer(`The pre-tokenizer ${quote(name)} is unknown; expected one of ${Object.keys(RULES).join(', ')}.`);
  return rule;
}
