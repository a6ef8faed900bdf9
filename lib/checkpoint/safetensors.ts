import { CqilError } from '../errors.js';
import { parseJson } from '../util/json.js';
import { ByteReader } from './byte_reader.js';
import { show } from './fields.js';
import { expectFewContainers } from './read_file.js';
import { MAX_TENSORS, type StoredTensor } from './tensor_table.js';

/** The header of a .safetensors file; no weight is read. */
export interface SafetensorsFile {
  /** `file` is 0 and `offset` counts from the start of the file. */
  tensors: StoredTensor[];
  fileSize: number;
}

// The format's own limit.
const MAX_HEADER_BYTES = 100_000_000;

// Bits, because the format has types narrower than a byte. A type that is not listed is left to whoever needs that
// tensor.
const TYPE_BITS = new Map<unknown, number>([
  ['F64', 64],
  ['F32', 32],
  ['F16', 16],
  ['BF16', 16],
  ['F8_E4M3', 8],
  ['F8_E5M2', 8],
  ['I64', 64],
  ['I32', 32],
  ['I16', 16],
  ['I8', 8],
  ['U64', 64],
  ['U32', 32],
  ['U16', 16],
  ['U8', 8],
  ['BOOL', 8],
]);

interface HeaderEntry {
  dtype: string;
  shape: number[];
  data_offsets: [begin: number, end: number];
}

/**
 * Reads the header of a .safetensors file: 8 bytes of length, that much JSON, then the data (safetensors' format
 * description). Every tensor's type, shape and byte range agree; ranges cover the data without holes or overlaps, as
 * the format demands. Throws FILE_NOT_FOUND or INVALID_CHECKPOINT.
 */
export async function readSafetensors(path: string): Promise<SafetensorsFile> {
  const { text, fileSize } = await readHeader(path);
  const header = parseJson(text, `The header of ${path}`, 'INVALID_CHECKPOINT');
  if (typeof header !== 'object' || header === null || Array.isArray(header))
    throw invalid(path, `has a header that is ${show(header)}, not a JSON object`);

  const dataStart = 8 + Buffer.byteLength(text);
  const dataBytes = fileSize - dataStart;
  const entries: Array<[name: string, entry: HeaderEntry]> = [];
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    checkEntry(path, name, entry);
    entries.push([name, entry]);
  }
  entries.sort(([, a], [, b]) => a.data_offsets[0] - b.data_offsets[0] || a.data_offsets[1] - b.data_offsets[1]);
  let end = 0;
  for (const [
    name,
    {
      data_offsets: [from, to],
    },
  ] of entries) {
    if (from !== end)
      throw invalid(
        path,
        `has tensor ${show(name)} at data byte ${from}, ` +
          `${from < end ? 'overlapping the one before' : 'leaving a hole'}; ${end} is expected`,
      );
    end = to;
  }
  if (end !== dataBytes)
    throw invalid(
      path,
      `holds ${dataBytes} bytes of tensor data; its header describes ${end}. It is truncated or corrupted`,
    );
  const tensors = entries.map(([name, { dtype, shape, data_offsets }]) => ({
    name,
    type: dtype,
    shape,
    file: 0,
    offset: dataStart + data_offsets[0],
  }));
  return { tensors, fileSize };
}

async function readHeader(path: string): Promise<{ text: string; fileSize: number }> {
  const reader = await ByteReader.open(path, 8 + MAX_HEADER_BYTES);
  try {
    await reader.reach(8);
    const length = reader.size64('the header length');
    const view = await reader.read(length, 'the header');
    const bytes = new Uint8Array(view.buffer, view.byteOffset, length);
    // In the header, a tensor is an object with two arrays.
    expectFewContainers(bytes, `The header of ${path}`, 'INVALID_CHECKPOINT', 3 * MAX_TENSORS);
    try {
      return { text: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes), fileSize: reader.size };
    } catch (cause) {
      throw new CqilError('INVALID_CHECKPOINT', `${path} has a header that is not UTF-8.`, { cause });
    }
  } finally {
    await reader.close();
  }
}

function checkEntry(path: string, name: string, entry: unknown): asserts entry is HeaderEntry {
  const { dtype, shape, data_offsets: offsets } = Object(entry) as Record<string, unknown>;
  if (
    typeof dtype !== 'string' ||
    !isSizes(shape) ||
    !isSizes(offsets) ||
    offsets.length !== 2 ||
    offsets[0]! > offsets[1]!
  ) {
    throw invalid(
      path,
      `describes tensor ${show(name)} wrongly; "dtype" (a string), "shape" (sizes) and "data_offsets" (begin ≤ ` +
        'end) are expected',
    );
  }
  const elements = shape.reduce((product, size) => product * size, 1);
  const bits = TYPE_BITS.get(dtype);
  const bytes = offsets[1]! - offsets[0]!;
  if (!Number.isSafeInteger(elements) || (bits !== undefined && elements * bits !== bytes * 8)) {
    throw invalid(
      path,
      `gives tensor ${show(name)} ${bytes} bytes; shape [${shape.slice(0, 8).join(', ')}] of ${dtype} takes ` +
        `${(elements * (bits ?? 0)) / 8}`,
    );
  }
}

function isSizes(value: unknown): value is number[] {
  return (
    Array.isArray(value) &&
    value.length <= 8 &&
    value.every((size) => Number.isSafeInteger(size) && (size as number) >= 0)
  );
}

function invalid(path: string, problem: string): CqilError {
  return new CqilError('INVALID_CHECKPOINT', `${path} ${problem}.`);
}
