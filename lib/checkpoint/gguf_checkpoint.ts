import path from 'node:path';
import { CqilError } from '../errors.js';
import { ByteReader } from './byte_reader.js';
import { Fields, show } from './fields.js';
import { readGguf, type GgufFile, type GgufTensor } from './gguf.js';
import { ggufConfig } from './gguf_config.js';
import { tensorTable, type StoredTensor } from './tensor_table.js';
import { idsWithin } from './token_ids.js';
import type { Checkpoint, TokenizerSource } from './types.js';

/** ggml's type codes by name; those that the engine does not read are here to be named in messages. */
const GGML_TYPE_NAMES: Readonly<Record<number, string>> = {
  0: 'F32',
  1: 'F16',
  2: 'Q4_0',
  3: 'Q4_1',
  6: 'Q5_0',
  7: 'Q5_1',
  8: 'Q8_0',
  9: 'Q8_1',
  10: 'Q2_K',
  11: 'Q3_K',
  12: 'Q4_K',
  13: 'Q5_K',
  14: 'Q6_K',
  15: 'Q8_K',
  16: 'IQ2_XXS',
  17: 'IQ2_XS',
  18: 'IQ3_XXS',
  19: 'IQ1_S',
  20: 'IQ4_NL',
  21: 'IQ3_S',
  22: 'IQ2_S',
  23: 'IQ4_XS',
  24: 'I8',
  25: 'I16',
  26: 'I32',
  27: 'I64',
  28: 'F64',
  29: 'IQ1_M',
  30: 'BF16',
  34: 'TQ1_0',
  35: 'TQ2_0',
  39: 'MXFP4',
  40: 'NVFP4',
};

const ROPE_DIVISORS = ['rope_freqs.weight', 'rope_factors_short.weight'];

interface Part extends GgufFile {
  path: string;
}

/**
 * Opens a .gguf file, with its other parts when it is one of a split set. Throws FILE_NOT_FOUND, INVALID_CHECKPOINT or
 * UNSUPPORTED_MODEL.
 */
export async function openGguf(file: string): Promise<Checkpoint> {
  const parts = await readParts(file);
  const { metadata } = parts[0]!;
  const tensors = parts.flatMap((part) => part.tensors);
  if (tensors.length === 0)
    throw new CqilError(
      'INVALID_CHECKPOINT',
      `${file} holds no tensors, perhaps a vocabulary only; a model is expected.`,
    );
  const { config, options, names } = ggufConfig({ metadata, tensors }, await readRopeDivisors(parts), parts[0]!.path);
  const stored = parts.flatMap((part, index) => part.tensors.map((tensor) => storedTensor(tensor, part, index)));
  const files = parts.map((part) => ({ path: part.path, size: part.fileSize }));
  return {
    format: 'gguf',
    path: file,
    config,
    files: files.map((part) => part.path),
    tensors: tensorTable(stored, files, names.gguf, config, options),
    readTokenizer: async () => tokenizerSource(parts[0]!),
    readEosTokenIds: async () =>
      ['eos', 'eot', 'eom'].flatMap((name) =>
        idsWithin(config.vocabSize, metadata.get(`tokenizer.ggml.${name}_token_id`)),
      ),
  };
}

function storedTensor(tensor: GgufTensor, part: Part, file: number): StoredTensor {
  return {
    name: tensor.name,
    type: GGML_TYPE_NAMES[tensor.type] ?? `ggml type ${tensor.type}`,
    shape: tensor.shape,
    file,
    offset: part.dataOffset + tensor.offset,
  };
}

function tokenizerSource(part: Part): TokenizerSource {
  if (part.metadata.has('tokenizer.ggml.model')) return { kind: 'gguf', metadata: part.metadata };
  return { kind: 'none', reason: `${part.path} holds no vocabulary (no "tokenizer.ggml.model").` };
}

/** The file alone, or all parts of the split set it belongs to, in order. */
async function readParts(file: string): Promise<Part[]> {
  const given: Part = { ...(await readGguf(file)), path: file };
  const count = partCount(given);
  if (count <= 1) return [given];
  const match = /^(.*)-(\d{5})-of-(\d{5})(\.gguf)$/is.exec(path.basename(file));
  if (!match || Number(match[3]) !== count) {
    throw new CqilError(
      'INVALID_CHECKPOINT',
      `${file} is one of ${count} parts of a split model; a name ending in -00001-of-${number5(count)}.gguf is ` +
        'expected.',
    );
  }
  const parts: Part[] = [];
  for (let index = 0; index < count; index++) {
    const partPath = path.join(path.dirname(file), `${match[1]}-${number5(index + 1)}-of-${match[3]}${match[4]}`);
    const part = partPath === file ? given : { ...(await readGguf(partPath)), path: partPath };
    const number = new Fields((key) => part.metadata.get(key), partPath).integer('split.no', { min: 0, max: 65535 });
    if (number !== index || partCount(part) !== count) {
      throw new CqilError(
        'INVALID_CHECKPOINT',
        `${partPath} says it is part ${number + 1} of ${partCount(part)}; part ${index + 1} of ${count} is expected.`,
      );
    }
    parts.push(part);
  }
  return parts;
}

function partCount(part: Part): number {
  return new Fields((key) => part.metadata.get(key), part.path).integer('split.count', { min: 0, max: 65535 }, 1);
}

function number5(value: number): string {
  return String(value).padStart(5, '0');
}

/**
 * The tensor that llama 3.1's scaling, or LongRoPE's for short texts, is stored as: [ropeDim / 2] divisors of the rotary
 * frequencies.
 */
async function readRopeDivisors(parts: readonly Part[]): Promise<Float32Array | undefined> {
  for (const part of parts) {
    const tensor = part.tensors.find(({ name }) => ROPE_DIVISORS.includes(name));
    if (!tensor) continue;
    const length = tensor.shape[0]!;
    if (tensor.type !== 0 || tensor.shape.length !== 1 || length > 2 ** 13) {
      throw new CqilError(
        'INVALID_CHECKPOINT',
        `${part.path} has "${tensor.name}" as ${show(GGML_TYPE_NAMES[tensor.type])} ` +
          `[${tensor.shape.join(', ')}]; a short F32 vector is expected.`,
      );
    }
    const reader = await ByteReader.open(part.path, Infinity, part.dataOffset + tensor.offset);
    try {
      const view = await reader.read(4 * length, tensor.name);
      return Float32Array.from({ length }, (_, i) => view.getFloat32(4 * i, true));
    } finally {
      await reader.close();
    }
  }
  return undefined;
}
