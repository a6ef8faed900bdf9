/** A metadata value with its type in the file. Elements of an array of arrays are entries themselves. */
export type GgufEntry =
  | { type: GgufNumberType; value: number | bigint }
  | { type: 'bool'; value: boolean }
  | { type: 'string'; value: string }
  | { type: 'array'; of: GgufType; value: readonly unknown[] };

type GgufNumberType = 'u8' | 'i8' | 'u16' | 'i16' | 'u32' | 'i32' | 'f32' | 'u64' | 'i64' | 'f64';
export type GgufType = GgufNumberType | 'bool' | 'string' | 'array';

export interface GgufTensorEntry {
  name: string;
  /** ggml's type code. */
  type: number;
  /** Outermost dimension first. */
  shape: number[];
  data: Buffer;
}

export interface GgufContent {
  version?: number;
  alignment?: number;
  metadata: Record<string, GgufEntry>;
  tensors: GgufTensorEntry[];
}

const TYPE_CODES: Record<GgufType, number> = { u8: 0, i8: 1, u16: 2, i16: 3, u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9, u64: 10, i64: 11, f64: 12 };

export const u32 = (value: number): GgufEntry => ({ type: 'u32', value });
export const f32 = (value: number): GgufEntry => ({ type: 'f32', value });
export const text = (value: string): GgufEntry => ({ type: 'string', value });
export const array = (of: GgufType, value: readonly unknown[]): GgufEntry => ({ type: 'array', of, value });

/** The bytes of a little-endian GGUF file. */
export function ggufFile({ version = 3, alignment = 32, metadata, tensors }: GgufContent): Buffer {
  const entries = Object.entries(alignment === 32 ? metadata : { ...metadata, 'general.alignment': u32(alignment) });
  const parts = [Buffer.from('GGUF'), number('u32', version), number('u64', tensors.length), number('u64', entries.length)];
  for (const [key, entry] of entries) parts.push(string(key), number('u32', TYPE_CODES[entry.type]), valueBytes(entry));

  const align = (position: number) => Math.ceil(position / alignment) * alignment;
  let offset = 0;
  for (const { name, type, shape, data } of tensors) {
    parts.push(string(name), number('u32', shape.length), ...shape.toReversed().map((size) => number('u64', size)), number('u32', type), number('u64', offset));
    offset = align(offset + data.length);
  }
  const header = Buffer.concat(parts);
  const out = Buffer.alloc(align(header.length) + offset);
  header.copy(out);
  let position = align(header.length);
  for (const { data } of tensors) {
    data.copy(out, position);
    position = align(position + data.length);
  }
  return out;
}

function valueBytes(entry: GgufEntry): Buffer {
  if (entry.type === 'string') return string(entry.value);
  if (entry.type === 'bool') return Buffer.from([entry.value ? 1 : 0]);
  if (entry.type !== 'array') return number(entry.type, entry.value);
  const elements = entry.value.map((value) => valueBytes((entry.of === 'array' ? value : { type: entry.of, value }) as GgufEntry));
  return Buffer.concat([number('u32', TYPE_CODES[entry.of]), number('u64', elements.length), ...elements]);
}

function string(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([number('u64', bytes.length), bytes]);
}

function number(type: GgufNumberType, value: number | bigint): Buffer {
  const out = Buffer.alloc(Number(type.slice(1)) / 8);
  if (type === 'f32') out.writeFloatLE(Number(value));
  else if (type === 'f64') out.writeDoubleLE(Number(value));
  else if (type === 'u64') out.writeBigUInt64LE(BigInt(value));
  else if (type === 'i64') out.writeBigInt64LE(BigInt(value));
  else if (type.startsWith('u')) out.writeUIntLE(Number(value), 0, out.length);
  else out.writeIntLE(Number(value), 0, out.length);
  return out;
}
