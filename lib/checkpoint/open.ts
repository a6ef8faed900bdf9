import { stat } from 'node:fs/promises';
import path from 'node:path';
import { CqilError } from '../errors.js';
import { ByteReader } from './byte_reader.js';
import { GGUF_MAGIC } from './gguf.js';
import { openGguf } from './gguf_checkpoint.js';
import { openHuggingFace } from './huggingface.js';
import { readError } from './read_file.js';
import type { Checkpoint } from './types.js';

/**
 * Opens a model on disk: a Hugging Face folder (or a .safetensors or .json file in one) or a .gguf file (or one part of a
 * split set). Reads headers and configuration only, no weights. What a file is shows in its first bytes, not in its name.
 * Throws FILE_NOT_FOUND, INVALID_CHECKPOINT, UNSUPPORTED_MODEL or INVALID_TOKENIZER.
 */
export async function openCheckpoint(location: string): Promise<Checkpoint> {
  const absolute = path.resolve(location);
  if (await isFolder(absolute)) return openHuggingFace(absolute);
  switch (await sniff(absolute)) {
    case 'gguf':
      return openGguf(absolute);
    case 'safetensors':
    case 'json':
      return openHuggingFace(path.dirname(absolute));
    case 'pytorch':
      throw new CqilError('UNSUPPORTED_MODEL', `${absolute} is a PyTorch file; convert it to safetensors or GGUF.`);
    case 'ggml':
      throw new CqilError('UNSUPPORTED_MODEL', `${absolute} is of a GGML format older than GGUF; convert it to GGUF.`);
    default:
      throw new CqilError('INVALID_CHECKPOINT', `${absolute} is no model file; a Hugging Face model folder or a .gguf file is expected.`);
  }
}

async function isFolder(location: string): Promise<boolean> {
  try {
    const stats = await stat(location);
    if (stats.isDirectory()) return true;
    if (stats.isFile()) return false;
  } catch (cause) {
    throw readError(location, cause);
  }
  throw new CqilError('INVALID_CHECKPOINT', `${location} is neither a file nor a folder; a Hugging Face model folder or a .gguf file is expected.`);
}

type FileKind = 'gguf' | 'safetensors' | 'json' | 'pytorch' | 'ggml' | 'unknown';

const ZIP_MAGIC = 0x04034b50; // PyTorch's files are zip archives
const OLD_GGML_MAGICS = [0x67676d6c, 0x67676d66, 0x67676a74]; // "ggml", "ggmf", "ggjt"
const OPENING_BRACE = 0x7b;
const PICKLE_PROTOCOL = 0x80;

async function sniff(file: string): Promise<FileKind> {
  const reader = await ByteReader.open(file, 16);
  try {
    if (reader.limit < 9) return 'unknown';
    const start = await reader.take(9, 'the magic');
    const magic = start.getUint32(0, true);
    if (magic === GGUF_MAGIC) return 'gguf';
    if (magic === ZIP_MAGIC) return 'pytorch';
    if (OLD_GGML_MAGICS.includes(magic)) return 'ggml';
    // Safetensors: 8 bytes of header length, then the header's JSON.
    if (start.getUint8(8) === OPENING_BRACE && start.getUint32(4, true) === 0) return 'safetensors';
    const first = start.getUint8(0);
    if (first === PICKLE_PROTOCOL) return 'pytorch';
    const isJson = first === OPENING_BRACE || /^\s*\{/.test(String.fromCharCode(...new Uint8Array(start.buffer, start.byteOffset, 9)));
    return isJson ? 'json' : 'unknown';
  } finally {
    await reader.close();
  }
}
