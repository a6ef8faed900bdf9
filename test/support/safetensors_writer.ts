export interface SafetensorsEntry {
  name: string;
  dtype: string;
  shape: number[];
  data: Buffer;
}

/**
 * The bytes of a .safetensors file. `header` may change the header's JSON before it is written, to make broken files.
 */
export function safetensorsFile(
  entries: readonly SafetensorsEntry[],
  header: (json: Record<string, unknown>) => unknown = (json) => json,
): Buffer {
  const json: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  let end = 0;
  for (const { name, dtype, shape, data } of entries) {
    json[name] = { dtype, shape, data_offsets: [end, end + data.length] };
    end += data.length;
  }
  const text = Buffer.from(JSON.stringify(header(json)));
  // The format wants the data to begin at a multiple of 8; spaces at the header's end make it so.
  const padded = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  return Buffer.concat([length, padded, ...entries.map((entry) => entry.data)]);
}
