const TYPE_CODES = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  array: 9,
  u64: 10,
  i64: 11,
  f64: 12,
};
const ALIGNMENT = 32;

export const u32 = (value) => ({ type: 'u32', value });
export const f32 = (value) => ({ type: 'f32', value });
export const bool = (value) => ({ type: 'bool', value });
export const text = (value) => ({ type: 'string', value });
export const array = (of, value) => ({ type: 'array', of, value });

/**
 * Everything of a little-endian GGUF file before its tensors' data. The data follows: each tensor's bytes, padded to
 * the alignment. Tensors need a name, ggml's type code, a shape (outermost dimension first) and byteLength.
 */
export function ggufHeader({ version = 3, alignment = ALIGNMENT, metadata, tensors }) {
  const entries = Object.entries(
    alignment === ALIGNMENT ? metadata : { ...metadata, 'general.alignment': u32(alignment) },
  );
  const parts = [
    Buffer.from('GGUF'),
    number('u32', version),
    number('u64', tensors.length),
    number('u64', entries.length),
  ];
  for (const [key, entry] of entries) parts.push(string(key), number('u32', TYPE_CODES[entry.type]), valueBytes(entry));
  let offset = 0;
  for (const { name, type, shape, byteLength } of tensors) {
    parts.push(
      string(name),
      number('u32', shape.length),
      ...shape.toReversed().map((size) => number('u64', size)),
      number('u32', type),
      number('u64', offset),
    );
    offset += padded(byteLength, alignment);
  }
  return pad(Buffer.concat(parts), alignment);
}

/** The bytes of a whole file; tensors bring their `data`. For files that fit into memory. */
export function ggufFile({ alignment = ALIGNMENT, tensors, ...rest }) {
  const header = ggufHeader({
    ...rest,
    alignment,
    tensors: tensors.map(({ data, ...tensor }) => ({ ...tensor, byteLength: data.length })),
  });
  return Buffer.concat([header, ...tensors.map(({ data }) => pad(data, alignment))]);
}

/** A buffer with zeros after it up to the alignment. */
export function pad(bytes, alignment = ALIGNMENT) {
  const missing = padded(bytes.length, alignment) - bytes.length;
  return missing === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(missing)]);
}

function padded(length, alignment) {
  return Math.ceil(length / alignment) * alignment;
}

function valueBytes(entry) {
  if (entry.type === 'string') return string(entry.value);
  if (entry.type === 'bool') return Buffer.from([entry.value ? 1 : 0]);
  if (entry.type !== 'array') return number(entry.type, entry.value);
  const elements = entry.value.map((value) => valueBytes(entry.of === 'array' ? value : { type: entry.of, value }));
  return Buffer.concat([number('u32', TYPE_CODES[entry.of]), number('u64', elements.length), ...elements]);
}

function string(value) {
  const bytes = Buffer.from(value);
  return Buffer.concat([number('u64', bytes.length), bytes]);
}

function number(type, value) {
  const out = Buffer.alloc(Number(type.slice(1)) / 8);
  if (type === 'f32') out.writeFloatLE(Number(value));
  else if (type === 'f64') out.writeDoubleLE(Number(value));
  else if (type === 'u64') out.writeBigUInt64LE(BigInt(value));
  else if (type === 'i64') out.writeBigInt64LE(BigInt(value));
  else if (type.startsWith('u')) out.writeUIntLE(Number(value), 0, out.length);
  else out.writeIntLE(Number(value), 0, out.length);
  return out;
}
