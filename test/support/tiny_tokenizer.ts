import { loadTokenizer, type Tokenizer } from '../../lib/tokenizer/index.js';

/** A byte-level tokenizer of three letters, a space and one merge. */
export const TINY_JSON = {
  added_tokens: [{ id: 5, content: '<end>', special: true }],
  normalizer: null,
  pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
  post_processor: null,
  decoder: { type: 'ByteLevel' },
  model: { type: 'BPE', vocab: { a: 0, b: 1, c: 2, Ġ: 3, Ġa: 4 }, merges: ['Ġ a'] },
};

/** The tiny tokenizer with some of its parts replaced. */
export function tinyTokenizer(parts: object = {}, config: object = {}): Promise<Tokenizer> {
  return loadTokenizer({ kind: 'huggingface', json: { ...TINY_JSON, ...parts }, config, generationConfig: {} });
}

const ALPHABET = [
  ...'aabcdeéñßЖя我天ក🦙😀👍🏽ABCDE0123456789.,!?\'"()-_/▁Ġ',
  ' ',
  ' ',
  ' ',
  '  ',
  '\n',
  '\t',
  'the',
  'ing',
  ' and',
  "'s",
  '\u0301',
  '\u200d',
];

/** Text of up to `length` random characters, words and given tokens, with runs without any space among them. */
export function randomText(random: () => number, length: number, tokens: string[] = []): string {
  const pick = (from: string[]): string => from[Math.floor(random() * from.length)]!;
  let text = '';
  while (text.length < length * random() + 1) {
    const roll = random();
    if (roll < 0.02 && tokens.length > 0) text += pick(tokens);
    else if (roll < 0.04) text += pick(ALPHABET).repeat(1 + Math.floor(random() * 100));
    else text += pick(ALPHABET);
  }
  return text;
}
