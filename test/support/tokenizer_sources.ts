import { readFileSync } from 'node:fs';
import { readGguf } from '../../lib/checkpoint/gguf.js';
import type { TokenizerSource } from '../../lib/checkpoint/types.js';
import { sharedData } from './shared_data.js';

const GPT4_PATTERN = (digits: string): string =>
  `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ` +
  `?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;

/** A Hugging Face folder's tokenizer in the shared data. */
export function folderSource(...folder: string[]): TokenizerSource {
  const read = (name: string): unknown => readJson(...folder, name);
  return {
    kind: 'huggingface',
    json: read('tokenizer.json'),
    config: read('tokenizer_config.json'),
    generationConfig: read('generation_config.json'),
  };
}

/** The vocabulary of a GGUF file in the shared data. */
export async function ggufSource(...file: string[]): Promise<TokenizerSource> {
  const { metadata } = await readGguf(sharedData(...file));
  return { kind: 'gguf', metadata };
}

/** LLaMA-3, from its published byte-level vocabulary; its control tokens follow on 128000. */
export function llama3Source(): TokenizerSource {
  const control = [
    '<|begin_of_text|>',
    '<|end_of_text|>',
    '<|reserved_special_token_0|>',
    '<|reserved_special_token_1|>',
    '<|finetune_right_pad_id|>',
    '<|reserved_special_token_2|>',
    '<|start_header_id|>',
    '<|end_header_id|>',
    '<|eom_id|>',
    '<|eot_id|>',
  ];
  return byteLevelSource({
    vocab: ['tokenizers', 'llama-3', 'encoder.json'],
    merges: ['tokenizers', 'llama-3', 'vocab.bpe'],
    pattern: GPT4_PATTERN('\\p{N}{1,3}'),
    control: control.map((content, index) => ({ content, id: 128000 + index })),
    model: { ignore_merges: true },
    prefix: '<|begin_of_text|>',
    config: { bos_token: '<|begin_of_text|>', eos_token: '<|eot_id|>' },
  });
}

/** Qwen 1.5 and 2, as their published tokenizer.json has it: text is normalized to NFC first. */
export function qwen2Source(): TokenizerSource {
  const config = readJson('tokenizers', 'qwen1.5-2', 'tokenizer_config.json') as {
    added_tokens_decoder: Record<string, { content: string }>;
  };
  return byteLevelSource({
    vocab: ['tokenizers', 'qwen1.5-2', 'vocab.json'],
    merges: ['tokenizers', 'qwen1.5-2', 'merges.txt'],
    pattern: GPT4_PATTERN('\\p{N}'),
    control: Object.entries(config.added_tokens_decoder).map(([id, { content }]) => ({ content, id: Number(id) })),
    normalizer: { type: 'NFC' },
    config,
    generationConfig: readJson('tokenizers', 'qwen1.5-2', 'generation_config.json'),
  });
}

/** GPT-2, with the pattern that ByteLevel itself has. */
export function gpt2Source(): TokenizerSource {
  return byteLevelSource({
    vocab: ['tokenizers', 'gpt-2', 'gpt2_vocab.json'],
    merges: ['tokenizers', 'gpt-2', 'gpt2_merges.txt'],
    control: [{ content: '<|endoftext|>', id: 50256 }],
    config: { bos_token: '<|endoftext|>', eos_token: '<|endoftext|>' },
  });
}

interface ByteLevelParts {
  vocab: string[];
  merges: string[];
  pattern?: string;
  control: Array<{ content: string; id: number }>;
  normalizer?: unknown;
  model?: object;
  prefix?: string;
  config: unknown;
  generationConfig?: unknown;
}

function byteLevelSource(parts: ByteLevelParts): TokenizerSource {
  const merges = readFileSync(sharedData(...parts.merges), 'utf8').split('\n');
  const split = parts.pattern && {
    type: 'Split',
    pattern: { Regex: parts.pattern },
    behavior: 'Isolated',
    invert: false,
  };
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, use_regex: !split };
  const template = parts.prefix && {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: parts.prefix, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
  };
  const json = {
    added_tokens: parts.control.map((token) => ({ ...token, special: true, normalized: false })),
    normalizer: parts.normalizer ?? null,
    pre_tokenizer: split ? { type: 'Sequence', pretokenizers: [split, byteLevel] } : byteLevel,
    post_processor: template ?? null,
    decoder: { type: 'ByteLevel' },
    model: {
      type: 'BPE',
      vocab: readJson(...parts.vocab),
      merges: merges.filter((line) => line !== '' && !line.startsWith('#version')),
      ...parts.model,
    },
  };
  return { kind: 'huggingface', json, config: parts.config, generationConfig: parts.generationConfig };
}

/** A JSON file of the shared data; undefined where a folder leaves it out. */
export function readJson(...file: string[]): unknown {
  try {
    return JSON.parse(readFileSync(sharedData(...file), 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
