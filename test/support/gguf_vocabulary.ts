import type { GgufValue } from '../../lib/checkpoint/types.js';
import { ggufStrings } from './gguf_strings.js';

const TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, byte: 6 };

interface Json {
  added_tokens: Array<{ id: number; content: string; special: boolean }>;
  normalizer: { type: string } | null;
  model: { vocab: Record<string, number>; merges: string[]; byte_fallback: boolean };
}

/** The metadata of a GGUF file, as llama.cpp's converter would write it for a vocabulary of the fixtures. */
export function convertToGguf(json: Json, config: Record<string, unknown>, pre: string): Map<string, GgufValue> {
  const { vocab, merges, byte_fallback: isSentencePiece } = json.model;
  const pieces: string[] = [];
  for (const [piece, id] of Object.entries(vocab)) pieces[id] = piece;
  // The converter writes the spaces of tokens that the vocabulary's makers defined as spaces.
  for (const { id, content, special } of json.added_tokens)
    pieces[id] = special ? content : content.replaceAll('▁', ' ');
  const added = new Map(json.added_tokens.map(({ id, special }) => [id, special ? TYPE.control : TYPE.userDefined]));
  const types = pieces.map((piece, id) =>
    piece === '<unk>' ? TYPE.unknown : (added.get(id) ?? (isByte(piece) ? TYPE.byte : TYPE.normal)),
  );
  const fields: Record<string, GgufValue | undefined> = {
    tokens: ggufStrings(pieces),
    token_type: Int32Array.from(types),
    bos_token_id: idOf(pieces, config.bos_token),
    eos_token_id: idOf(pieces, config.eos_token),
    unknown_token_id: idOf(pieces, config.unk_token),
    add_space_prefix: json.normalizer?.type === 'Replace' ? false : undefined,
    add_bos_token: config.add_bos_token as boolean | undefined,
    ...(isSentencePiece
      ? // A trainer numbers the pieces in the order in which it joins them, the best score first.
        { model: 'llama', scores: Float32Array.from(pieces, (_, id) => -id) }
      : { model: 'gpt2', pre, merges: ggufStrings(merges) }),
  };
  return new Map(
    Object.entries(fields).flatMap(([key, value]) => (value === undefined ? [] : [[`tokenizer.ggml.${key}`, value]])),
  );
}

function isByte(piece: string): boolean {
  return /^<0x[0-9A-F]{2}>$/.test(piece);
}

function idOf(pieces: string[], token: unknown): number | undefined {
  const id = pieces.indexOf(token as string);
  return id < 0 ? undefined : id;
}
