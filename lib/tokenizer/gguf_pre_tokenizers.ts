import { invalidTokenizer, quote } from './invalid.js';
import { GPT2_PATTERN } from './pre_tokenizer.js';
import type { Component } from './tokenizer_json.js';

/** How a byte-level vocabulary cuts text before merging, and the rules that come with it. */
export interface PreTokenizerRule {
  /** Patterns applied one after the other, each to the words the ones before it left. */
  patterns: string[];
  /** A word that is itself a piece is taken whole: every one, or those that match. */
  ignoreMerges?: boolean | RegExp;
  /** BOS goes before a text unless the file says otherwise. */
  addBos?: boolean;
  /** Pieces are text, with ▁ for a space and `<0xNN>` for a byte, instead of being spelled in GPT-2's alphabet. */
  piecesAreText?: boolean;
}

const CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const SPACES = '\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const WORD = '[^\\r\\n\\p{L}\\p{N}]?\\p{L}+';
const SYMBOLS = ' ?[^\\s\\p{L}\\p{N}]+';

/** The pattern of GPT-4's family: `digits` is how numbers are cut. */
function gpt4Pattern(digits: string): string {
  return `${CONTRACTION}|${WORD}|${digits}|${SYMBOLS}[\\r\\n]*|${SPACES}`;
}

const UPPER = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]';
const LOWER = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]';

interface CasedParts {
  digits: string;
  /** May stand after a word. */
  ending?: string;
  /** Letters of words are not in this class. */
  except?: string;
  /** Characters that may follow a run of symbols. */
  afterSymbols?: string;
}

/** The pattern of GPT-4o's family, which begins a new word where a capital follows a small letter. */
function casedPattern({ digits, ending = '', except, afterSymbols = '[\\r\\n/]' }: CasedParts): string {
  const [upper, lower] = [UPPER, LOWER].map((letters) => (except ? `(?:(?!${except})${letters})` : letters));
  return (
    `[^\\r\\n\\p{L}\\p{N}]?${upper}*${lower}+${ending}|[^\\r\\n\\p{L}\\p{N}]?${upper}+${lower}*${ending}|` +
    `${digits}|${SYMBOLS}${afterSymbols}*|${SPACES}`
  );
}

/** DeepSeek V3's words: letters with their marks, perhaps after one sign; and runs of signs. */
const DEEPSEEK_WORDS =
  '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+';
const HAN_AND_KANA = '[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+';
const EAST_ASIAN = '[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+';

/** Ranges of code points: the letters that DeepSeek-LLM's pattern lists, from scripts that have capitals. */
const CASED_LETTERS =
  '41-5a 61-7a b5 c0-d6 d8-f6 f8-1ba 1bc-1bf 1c4-293 295-2af 370-373 376-377 37b-37d 37f 386 388-38a 38c 38e-3a1 3a3-3f5 3f7-481 48a-52f ' +
  '531-556 10a0-10c5 13a0-13f5 13f8-13fd 1c90-1cba 1cbd-1cbf 1d00-1d2b 1d6b-1d77 1d79-1d9a 1e00-1f15 1f18-1f1d 1f20-1f45 1f48-1f4d 1f50-1f57 ' +
  '1f59 1f5b 1f5d 1f5f-1f7d 1f80-1fb4 1fb6-1fbc 1fbe 1fc2-1fc4 1fc6-1fcc 1fd0-1fd3 1fd6-1fdb 1fe0-1fec 1ff2-1ff4 1ff6-1ffc 2102 2107 ' +
  '210a-2113 2115 2119-211d 2124 2126 2128 212a-212d 212f-2134 2139 213c-213f 2145-2149 214e 2183-2184 2c00-2c7b 2c7e-2ce4 2ceb-2cee ' +
  '2cf2-2cf3 a640-a66d a680-a69b a722-a76f a771-a787 a78b-a78e ab70-abbf fb00-fb06 fb13-fb17 ff21-ff3a ff41-ff5a 10400-1044f 104b0-104d3 ' +
  '104d8-104fb 10c80-10cb2 10cc0-10cf2 118a0-118df 1e900-1e943';

function characterClass(ranges: string): string {
  return ranges.replaceAll(/[^ -]+/g, (code) => String.fromCodePoint(Number.parseInt(code, 16))).replaceAll(' ', '');
}

const GPT2: PreTokenizerRule = { patterns: [GPT2_PATTERN] };
const SINGLE_DIGITS: PreTokenizerRule = { patterns: ['\\p{N}', GPT2_PATTERN] };
const QWEN2: PreTokenizerRule = { patterns: [gpt4Pattern('\\p{N}')] };
const LLAMA3: PreTokenizerRule = { patterns: [gpt4Pattern('\\p{N}{1,3}')], ignoreMerges: true, addBos: true };
const GPT4: PreTokenizerRule = { patterns: LLAMA3.patterns };
const GPT4O: PreTokenizerRule = { patterns: [casedPattern({ digits: '\\p{N}{1,3}', ending: `${CONTRACTION}?` })] };
const DEEPSEEK_V3: PreTokenizerRule = {
  patterns: ['\\p{N}{1,3}', HAN_AND_KANA, `${DEEPSEEK_WORDS}[\\r\\n]*|${SPACES}`],
};
const HAN = '\\p{Script=Han}';
const LINES = '[^\\n]+|\\n+';
/** Gemma's words are lines; a run of line breaks is taken whole. */
const GEMMA4: PreTokenizerRule = { patterns: [LINES], ignoreMerges: /^\n+$/, piecesAreText: true };
const BLOOM: PreTokenizerRule = { patterns: [' ?[^(\\s|.,!?…。，、।۔،)]+'] };
const BAILING: PreTokenizerRule = {
  patterns: [`'(?i:[sdmt]|ll|ve|re)|${WORD}|\\p{N}|${SYMBOLS}[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+`],
};

/** llama.cpp's names, as `tokenizer.ggml.pre` holds them, of pre-tokenizers for byte-level vocabularies. */
const RULES: Record<string, PreTokenizerRule> = {
  default: { patterns: ['[\\p{P}\\$\\+<=>\\^~\\|]+', GPT2_PATTERN, '\\p{N}+', '[0-9][0-9][0-9]'] },
  'gpt-2': GPT2,
  'phi-2': GPT2,
  'jina-es': GPT2,
  'jina-de': GPT2,
  'jina-v2-es': GPT2,
  'jina-v2-de': GPT2,
  gigachat: GPT2,
  mpt: GPT2,
  olmo: GPT2,
  jais: GPT2,
  'a.x-4.0': GPT2,
  mellum: GPT2,
  'modern-bert': GPT2,
  exaone4: GPT2,
  trillion: GPT2,
  'granite-docling': GPT2,
  'jina-v1-en': GPT2,
  'jina-v2-code': GPT2,
  'roberta-bpe': GPT2,
  smollm: SINGLE_DIGITS,
  starcoder: SINGLE_DIGITS,
  refact: SINGLE_DIGITS,
  'command-r': SINGLE_DIGITS,
  codeshell: SINGLE_DIGITS,
  exaone: SINGLE_DIGITS,
  'minerva-7b': SINGLE_DIGITS,
  mellum2: SINGLE_DIGITS,
  falcon: { patterns: ['[\\p{P}\\$\\+<=>\\^~\\|`]+', GPT2_PATTERN, '[0-9][0-9][0-9]'] },
  qwen2: QWEN2,
  'deepseek-r1-qwen': QWEN2,
  megrez: QWEN2,
  stablelm2: QWEN2,
  hunyuan: QWEN2,
  kormo: QWEN2,
  f2llmv2: QWEN2,
  'solar-open': QWEN2,
  'grok-2': QWEN2,
  qwen35: {
    patterns: [
      `${CONTRACTION}|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|${SPACES}`,
    ],
  },
  ufakzeka: { patterns: [`${WORD}|\\p{N}|${SYMBOLS}[\\r\\n]*|${SPACES}`] },
  'seed-coder': { patterns: [`${CONTRACTION}|${WORD}|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|${SPACES}`] },
  laguna: { patterns: [LINES, ...QWEN2.patterns] },
  'llama-bpe': LLAMA3,
  llama3: LLAMA3,
  'llama-v3': LLAMA3,
  falcon3: LLAMA3,
  'falcon-h1': LLAMA3,
  pixtral: LLAMA3,
  'midm-2.0': LLAMA3,
  lfm2: LLAMA3,
  'jina-v5-nano': LLAMA3,
  dbrx: GPT4,
  'smaug-bpe': GPT4,
  glm4: GPT4,
  'chatglm-bpe': GPT4,
  minicpm5: { patterns: ['\\p{N}{1,3}', gpt4Pattern('\\p{N}+')], ignoreMerges: true },
  'jais-2': {
    patterns: [
      `${CONTRACTION}|${WORD}|\\p{N}{1,3}|${SYMBOLS}[\\r\\n]*|\\s*[\\r\\n]+|` +
        `${[512, 256, 128, 64, 32, 16, 8, 4, '1,2'].map((count) => `\\s{${count}}(?!\\S)`).join('|')}|\\s{1}`,
    ],
  },
  tekken: { patterns: [casedPattern({ digits: '\\p{N}' })], ignoreMerges: true, addBos: true },
  'gpt-4o': GPT4O,
  llama4: GPT4O,
  kanana2: GPT4O,
  talkie: GPT4O,
  'minimax-m2': GPT4O,
  'granite-embed-multi-97m': { ...GPT4O, ignoreMerges: true },
  'kimi-k2': {
    patterns: [
      `${HAN}+|${casedPattern({ digits: '\\p{N}{1,3}', ending: `${CONTRACTION}?`, except: HAN, afterSymbols: '[\\r\\n]' })}`,
    ],
  },
  tiny_aya: { patterns: ['\\d{1,3}(?=(?:\\d{3})*\\b)', ...GPT4O.patterns] },
  cohere2moe: { patterns: ['\\d{1,3}(?=(?:\\d{3})*\\b)', ...GPT4O.patterns] },
  youtu: {
    patterns: [
      `[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|${HAN_AND_KANA}`,
      casedPattern({ digits: '\\p{N}', ending: `${CONTRACTION}?` }),
    ],
    ignoreMerges: true,
  },
  'deepseek-llm': {
    patterns: [
      '[\\r\\n]',
      `\\s?[${characterClass(CASED_LETTERS)}]+`,
      '\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+',
      '\\s+$',
      EAST_ASIAN,
      '\\p{N}',
    ],
  },
  'deepseek-coder': { patterns: ['[\\r\\n]', '\\s?\\p{L}+', '\\s?\\p{P}+', EAST_ASIAN, '\\p{N}'] },
  'deepseek-v3': DEEPSEEK_V3,
  'hunyuan-dense': DEEPSEEK_V3,
  'joyai-llm': DEEPSEEK_V3,
  hy_v4: DEEPSEEK_V3,
  spark2_5: { patterns: ['\\p{N}{1,3}', HAN_AND_KANA, `${DEEPSEEK_WORDS}|[\\r\\n]|\\s+(?!\\S)|\\s+`, '\\p{N}'] },
  superbpe: { patterns: ['\\p{N}+', '(?=(\\d{3})+(?!\\d))'] },
  bailingmoe: BAILING,
  bailingmoe2: BAILING,
  'llada-moe': BAILING,
  'exaone-moe': {
    patterns: [
      `${CONTRACTION}|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: ` +
        `\\p{L}\\p{M}*)*)+|\\p{N}|${SYMBOLS}[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+`,
    ],
  },
  gemma4: GEMMA4,
  'granite-embed-multi-311m': GEMMA4,
  'sarvam-moe': { patterns: [LINES], piecesAreText: true },
  'poro-chat': BLOOM,
  bloom: BLOOM,
  'gpt3-finnish': BLOOM,
  viking: { patterns: [...BLOOM.patterns, '\\p{N}'] },
  chameleon: {
    patterns: [
      '<sentinel:[0-9]+>',
      '(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z',
      '([\\t\\n]|    |  )',
      '\\p{N}',
      '[\\p{P}!-/:-@\\[-`{-~]',
      GPT2_PATTERN,
    ],
    addBos: true,
  },
};

export const PRE_TOKENIZER_NAMES: readonly string[] = Object.keys(RULES);

/** Names that llama.cpp knows and that have no rule here, and why. */
const REFUSED: Record<string, string> = {
  afmoe:
    "llama.cpp's table and the models' own files may differ in which scripts it sets apart and where it cuts " +
    'before digits',
  whitespace: 'it belongs to models that embed text, and drops spaces',
};

/** A rule's patterns as pre-tokenizers of a tokenizer.json. */
export function splitsBy(rule: PreTokenizerRule): Component[] {
  return rule.patterns.map((Regex) => ({ type: 'Split', pattern: { Regex }, behavior: 'Isolated' }));
}

/** The rule of a name. Throws INVALID_TOKENIZER, listing the known names. */
export function preTokenizerRule(name: unknown): PreTokenizerRule {
  const rule = typeof name === 'string' && Object.hasOwn(RULES, name) ? RULES[name] : undefined;
  const refused = typeof name === 'string' && Object.hasOwn(REFUSED, name) ? REFUSED[name] : undefined;
  if (refused) throw invalidTokenizer(`The pre-tokenizer ${quote(name)} is not supported: ${refused}.`);
  if (!rule)
    throw invalidTokenizer(
      `The pre-tokenizer ${quote(name)} is unknown; expected one of ${PRE_TOKENIZER_NAMES.join(', ')}.`,
    );
  return rule;
}
