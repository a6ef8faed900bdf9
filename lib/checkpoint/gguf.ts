import { CqilError } from '../errors.js';
import { ByteReader } from './byte_reader.js';
import { show } from './fields.js';
import { MAX_TENSORS } from './tensor_table.js';
import { GGUF_MAGIC, type GgufArray, type GgufValue } from './types.js';

/** One entry of a GGUF file's tensor table, as it stands in the file. */
export interface GgufTensor {
  name: string;
  /** ggml's type code. */
  type: number;
  /** Outermost dimension first, so [rows, columns]; the file stores the reverse. */
  shape: number[];
  /** Bytes from `dataOffset`. */
  offset: number;
}

/** The header of a GGUF file; no weight is read. */
export interface GgufFile {
  version: number;
  /** 64-bit integers are numbers where that is exact, bigints beyond 2^53; 64-bit arrays are always bigints. */
  metadata: Map<string, GgufValue>;
  tensors: GgufTensor[];
  /** Where tensor data begins, bytes from the start of the file. */
  dataOffset: number;
  fileSize: number;
}

const enum ValueType {
  Uint8,
  Int8,
  Uint16,
  Int16,
  Uint32,
  Int32,
  Float32,
  Bool,
  String,
  Array,
  Uint64,
  Int64,
  Float64,
}

// The least a value of each type takes in the file, to bound counts before anything is allocated for them.
const MIN_BYTES = [1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8];
const MIN_ENTRY_BYTES = 8 + 1 + 4 + 1; // name, type, value
const MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8; // name, dimension count, one dimension, type, offset

// Far above any real header (a 256k vocabulary takes about 12 MB), and low enough that a hostile one cannot exhaust
// memory.
const MAX_HEADER_BYTES = 128 * 2 ** 20;
const MAX_ARRAY_ELEMENTS = 2 ** 24;
const MAX_ARRAYS = 2 ** 12;
const MAX_ENTRIES = 2 ** 16;
const MAX_NAME_BYTES = 65535;
const ARRAY_HEAD_BYTES = 4 + 8; // element type, length
const HEAD_BYTES = 4 + 4 + 8 + 8; // magic, version, two counts
const MAX_DIMENSIONS = 4;
const MAX_ENTRY_BYTES = 8 + MAX_NAME_BYTES + 4 + ARRAY_HEAD_BYTES; // up to the elements of an array
const MAX_TENSOR_BYTES = 8 + MAX_NAME_BYTES + 4 + 8 * MAX_DIMENSIONS + 4 + 8;
const MAX_NESTING = 4;
const MAX_ALIGNMENT = 2 ** 20;

/**
 * Reads the header of a little-endian GGUF file, version 2 or 3 (ggml's docs/gguf.md).
 * Throws FILE_NOT_FOUND, INVALID_CHECKPOINT (truncated, corrupted, hostile) or UNSUPPORTED_MODEL (other versions,
 * big-endian).
 */
export async function readGguf(file: string): Promise<GgufFile> {
  const reader = await ByteReader.open(file, MAX_HEADER_BYTES);
  try {
    return await new HeaderParser(reader).parse();
  } finally {
    await reader.close();
  }
}

class HeaderParser {
  private elements = 0;
  /** Arrays inside other arrays that were read so far. */
  private arrays = 0;

  constructor(private readonly reader: ByteReader) {}

  async parse(): Promise<GgufFile> {
    const { reader } = this;
    await reader.reach(HEAD_BYTES);
    if (reader.u32('the magic') !== GGUF_MAGIC) throw reader.invalid('does not begin with "GGUF"');
    const version = reader.u32('the version');
    this.checkVersion(version);
    const tensorCount = reader.count('tensors', MIN_TENSOR_BYTES);
    const entryCount = reader.count('metadata entries', MIN_ENTRY_BYTES);
    if (tensorCount > MAX_TENSORS)
      throw reader.invalid(`announces ${tensorCount} tensors; at most ${MAX_TENSORS} are expected`);
    if (entryCount > MAX_ENTRIES)
      throw reader.invalid(`announces ${entryCount} metadata entries; at most ${MAX_ENTRIES} are expected`);

    const metadata = new Map<string, GgufValue>();
    for (let i = 0; i < entryCount; i++) {
      await reader.reach(MAX_ENTRY_BYTES);
      const key = reader.name(MAX_NAME_BYTES, 'a metadata key');
      if (metadata.has(key)) throw reader.invalid(`has the metadata key ${show(key)} twice`);
      const type = reader.u32(`the type of ${show(key)}`);
      metadata.set(key, await this.value(type, key, 0));
    }

    const alignment = this.alignment(metadata);
    const tensors = new Map<string, GgufTensor>();
    for (let i = 0; i < tensorCount; i++) {
      await reader.reach(MAX_TENSOR_BYTES);
      const tensor = this.tensor(alignment);
      if (tensors.has(tensor.name)) throw reader.invalid(`has the tensor ${show(tensor.name)} twice`);
      tensors.set(tensor.name, tensor);
    }

    const dataOffset = Math.ceil(reader.position / alignment) * alignment;
    return { version, metadata, tensors: [...tensors.values()], dataOffset, fileSize: reader.size };
  }

  private checkVersion(version: number): void {
    if (version === 2 || version === 3) return;
    const path = this.reader.path;
    if (version === 0x02000000 || version === 0x03000000) {
      throw new CqilError(
        'UNSUPPORTED_MODEL',
        `${path} is a big-endian GGUF file; only little-endian ones are supported.`,
      );
    }
    throw new CqilError('UNSUPPORTED_MODEL', `${path} is GGUF version ${version}; versions 2 and 3 are supported.`);
  }

  private alignment(metadata: ReadonlyMap<string, GgufValue>): number {
    const value = metadata.get('general.alignment') ?? 32;
    const valid =
      typeof value === 'number' &&
      Number.isInteger(value) &&
      value > 0 &&
      value <= MAX_ALIGNMENT &&
      (value & (value - 1)) === 0;
    if (!valid)
      throw this.reader.invalid(`has general.alignment ${show(value)}, not a power of two up to ${MAX_ALIGNMENT}`);
    return value;
  }

  private tensor(alignment: number): GgufTensor {
    const { reader } = this;
    const name = reader.name(MAX_NAME_BYTES, 'a tensor name');
    const shown = show(name);
    const dimensions = reader.u32(`the dimension count of ${shown}`);
    if (dimensions > MAX_DIMENSIONS)
      throw reader.invalid(
        `says that tensor ${shown} has ${dimensions} dimensions; at most ${MAX_DIMENSIONS} are expected`,
      );
    const shape: number[] = [];
    let elements = 1;
    for (let i = 0; i < dimensions; i++) {
      const size = reader.size64(`a dimension of ${shown}`);
      elements *= size;
      if (elements > Number.MAX_SAFE_INTEGER)
        throw reader.invalid(`says that dimension ${i} of tensor ${shown} is ${size}`);
      shape.unshift(size);
    }
    const type = reader.u32(`the type of ${shown}`);
    const offset = reader.size64(`the offset of ${shown}`);
    if (offset % alignment !== 0)
      throw reader.invalid(`puts tensor ${shown} at ${offset}, not a multiple of the alignment ${alignment}`);
    return { name, type, shape, offset };
  }

  private async value(type: number, key: string, depth: number): Promise<GgufValue> {
    const { reader } = this;
    const what = show(key);
    switch (type) {
      case ValueType.Uint8:
        return reader.view(1, what).getUint8(0);
      case ValueType.Int8:
        return reader.view(1, what).getInt8(0);
      case ValueType.Uint16:
        return reader.view(2, what).getUint16(0, true);
      case ValueType.Int16:
        return reader.view(2, what).getInt16(0, true);
      case ValueType.Uint32:
        return reader.u32(what);
      case ValueType.Int32:
        return reader.view(4, what).getInt32(0, true);
      case ValueType.Float32:
        return reader.view(4, what).getFloat32(0, true);
      case ValueType.Bool:
        return reader.view(1, what).getUint8(0) !== 0;
      case ValueType.String:
        return reader.string(what);
      case ValueType.Array:
        return this.array(key, depth);
      case ValueType.Uint64:
        return exactNumber(reader.view(8, what).getBigUint64(0, true));
      case ValueType.Int64:
        return exactNumber(reader.view(8, what).getBigInt64(0, true));
      case ValueType.Float64:
        return reader.view(8, what).getFloat64(0, true);
      default:
        throw this.unknownType(type, key);
    }
  }

  private async array(key: string, depth: number): Promise<GgufArray> {
    const { reader } = this;
    const what = show(key);
    const type = reader.u32(`the element type of ${what}`);
    const minBytes = MIN_BYTES[type];
    if (minBytes === undefined) throw this.unknownType(type, key);
    const length = reader.count(`elements of ${what}`, minBytes);
    this.elements += length;
    if (this.elements > MAX_ARRAY_ELEMENTS)
      throw reader.invalid(`has more than ${MAX_ARRAY_ELEMENTS} array elements in its metadata`);

    if (type === ValueType.String) return reader.strings(length, what);
    if (type === ValueType.Array) {
      if (depth >= MAX_NESTING) throw reader.invalid(`nests arrays more than ${MAX_NESTING} deep in ${what}`);
      this.arrays += length;
      if (this.arrays > MAX_ARRAYS)
        throw reader.invalid(`has more than ${MAX_ARRAYS} arrays inside arrays in its metadata`);
      const arrays: GgufArray[] = [];
      for (let i = 0; i < length; i++) {
        await reader.reach(ARRAY_HEAD_BYTES);
        arrays.push(await this.array(key, depth + 1));
      }
      return arrays;
    }
    return numbers(type, await reader.read(length * minBytes, what));
  }

  private unknownType(type: number, key: string): CqilError {
    return this.reader.invalid(`gives ${show(key)} the unknown value type ${type}`);
  }
}

/**
 * The numbers of an array. They are copied, because the reader's window moves on, and taken as they are, because every
 * machine that the engine runs on is little-endian, as the file is.
 */
function numbers(type: ValueType, { buffer, byteOffset, byteLength }: DataView): GgufArray {
  const bytes = new Uint8Array(buffer, byteOffset, byteLength).slice();
  switch (type) {
    case ValueType.Uint8:
      return bytes;
    case ValueType.Int8:
      return new Int8Array(bytes.buffer);
    case ValueType.Uint16:
      return new Uint16Array(bytes.buffer);
    case ValueType.Int16:
      return new Int16Array(bytes.buffer);
    case ValueType.Uint32:
      return new Uint32Array(bytes.buffer);
    case ValueType.Int32:
      return new Int32Array(bytes.buffer);
    case ValueType.Float32:
      return new Float32Array(bytes.buffer);
    case ValueType.Bool:
      return booleans(bytes);
    case ValueType.Uint64:
      return new BigUint64Array(bytes.buffer);
    case ValueType.Int64:
      return new BigInt64Array(bytes.buffer);
    default:
      return new Float64Array(bytes.buffer);
  }
}

function booleans(bytes: Uint8Array): boolean[] {
  // Array.from takes several times as long.
  const values: boolean[] = [];
  for (const byte of bytes) values.push(byte !== 0);
  return values;
}

function exactNumber(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
