import { stat } from 'node:fs/promises';
import path from 'node:path';
import { CqilError } from '../errors.js';
import { absolutePath, pathOf, type Location } from '../util/location.js';
import { ByteReader } from './byte_reader.js';
import { readError } from './read_file.js';
import { GGUF_MAGIC, type Checkpoint } from './types.js';

/** JSON files that belong to a whole Hugging Face folder. The path of one of them stands for the folder. */
const FOLDER_FILES = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
];

/**
 * Opens a model on disk: a Hugging Face folder, a .safetensors file or an index in one, or a .gguf file. Of a model
 * split into several files, any part will do. Reads headers and configuration only, no weights. A file's kind is told
 * by its first bytes, not by its name.
 *
 * Throws INVALID_ARGUMENT, FILE_NOT_FOUND, INVALID_CHECKPOINT, UNSUPPORTED_MODEL or INVALID_TOKENIZER.
 */
export async function openCheckpoint(location: Location): Promise<Checkpoint> {
  const absolute = absolutePath(pathOf(location, 'The path of the model'), 'The path of the model');
  // Each kind of file has a reader of its own, and only the one that is needed is imported.
  if (await isFolder(absolute)) return (await import('./huggingface.js')).openHuggingFace(absolute);
  const kind = await sniff(absolute);
  switch (kind) {
    case 'gguf':
      return (await import('./gguf_checkpoint.js')).openGguf(absolute);
    case 'safetensors':
    case 'json':
      return openOneOfFolder(absolute, kind);
    case 'zip':
    case 'pickle':
      if (kind === 'zip' && /\.npz$/i.test(absolute))
        throw new CqilError(
          'UNSUPPORTED_MODEL',
          `${absolute} is an MLX file of weights; convert it to safetensors with Hugging Face's names, or GGUF.`,
        );
      throw new CqilError('UNSUPPORTED_MODEL', `${absolute} is a PyTorch file; convert it to safetensors or GGUF.`);
    case 'ggml':
      throw new CqilError('UNSUPPORTED_MODEL', `${absolute} is of a GGML format older than GGUF; convert it to GGUF.`);
    default:
      throw new CqilError(
        'INVALID_CHECKPOINT',
        `${absolute} is no model file; a Hugging Face model folder or a .gguf file is expected.`,
      );
  }
}

/** Opens the folder of a model by the path of one of its files, which are the weights to use where it is weights. */
async function openOneOfFolder(file: string, kind: 'safetensors' | 'json'): Promise<Checkpoint> {
  const [{ openHuggingFace }, { isAdapterFile, isIndex }] = await Promise.all([
    import('./huggingface.js'),
    import('./weight_files.js'),
  ]);
  const [folder, name] = [path.dirname(file), path.basename(file)];
  if (isAdapterFile(name) || name === 'adapter_config.json') throw isAdapter(file);
  if (kind === 'safetensors' || isIndex(name)) return openHuggingFace(folder, name);
  if (FOLDER_FILES.includes(name)) return openHuggingFace(folder);
  throw new CqilError(
    'INVALID_CHECKPOINT',
    `${file} is JSON but no index of weights; a Hugging Face model folder, a .safetensors or a .gguf file ` +
      'is expected.',
  );
}

function isAdapter(file: string): CqilError {
  return new CqilError(
    'INVALID_CHECKPOINT',
    `${file} belongs to an adapter; a whole model is expected, and the adapter's folder as "adapter" of a plan.`,
  );
}

async function isFolder(location: string): Promise<boolean> {
  try {
    const stats = await stat(location);
    if (stats.isDirectory()) return true;
    if (stats.isFile()) return false;
  } catch (cause) {
    throw readError(location, cause);
  }
  throw new CqilError(
    'INVALID_CHECKPOINT',
    `${location} is neither a file nor a folder; a Hugging Face model folder or a .gguf file is expected.`,
  );
}

type FileKind = 'gguf' | 'safetensors' | 'json' | 'zip' | 'pickle' | 'ggml' | 'unknown';

const ZIP_MAGIC = 0x04034b50; // PyTorch's and NumPy's files are zip archives
const OLD_GGML_MAGICS = [0x67676d6c, 0x67676d66, 0x67676a74]; // "ggml", "ggmf", "ggjt"
const OPENING_BRACE = 0x7b;
const PICKLE_PROTOCOL = 0x80;

async function sniff(file: string): Promise<FileKind> {
  const reader = await ByteReader.open(file, 16);
  try {
    if (reader.limit < 9) return 'unknown';
    const start = await reader.read(9, 'the magic');
    const magic = start.getUint32(0, true);
    if (magic === GGUF_MAGIC) return 'gguf';
    if (magic === ZIP_MAGIC) return 'zip';
    if (OLD_GGML_MAGICS.includes(magic)) return 'ggml';
    // Safetensors: 8 bytes of header length, then the header's JSON.
    if (start.getUint8(8) === OPENING_BRACE && start.getUint32(4, true) === 0) return 'safetensors';
    const first = start.getUint8(0);
    if (first === PICKLE_PROTOCOL) return 'pickle';
    const text = Buffer.from(start.buffer, start.byteOffset, 9).toString('utf8');
    return /^\ufeff?\s*\{/.test(text) ? 'json' : 'unknown';
  } finally {
    await reader.close();
  }
}
