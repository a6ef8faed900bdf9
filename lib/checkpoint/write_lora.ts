import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { LORA_CONFIG_FILE, LORA_PREFIX, LORA_WEIGHTS_FILE, moduleName } from './lora.js';
import type { Projection } from './types.js';

/** The update B·A of one projection, in float32. */
export interface LoraUpdate {
  role: Projection;
  layer: number;
  /** The rank of A [rank, cols] and B [rows, rank], at most the adapter's. */
  rank: number;
  a: Float32Array;
  b: Float32Array;
}

/**
 * Writes updates as a PEFT LoRA adapter, a folder that must not exist yet. Updates of less rank than the largest are
 * padded with zeros, because the format has one rank; lora_alpha equals it, so that the scale is 1.
 */
export async function writeLora(folder: string, updates: readonly LoraUpdate[], baseModel: string): Promise<void> {
  const rank = Math.max(...updates.map((update) => update.rank));
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  const parts: Buffer[] = [];
  let end = 0;
  const add = (name: string, shape: [number, number], values: Float32Array): void => {
    const bytes = Buffer.from(values.buffer, values.byteOffset, values.byteLength);
    header[name] = { dtype: 'F32', shape, data_offsets: [end, end + bytes.length] };
    parts.push(bytes);
    end += bytes.length;
  };
  for (const update of updates) {
    const cols = update.a.length / update.rank;
    const rows = update.b.length / update.rank;
    const name = `${LORA_PREFIX}${moduleName(update.role, update.layer)}`;
    const a = new Float32Array(rank * cols);
    a.set(update.a);
    const b = new Float32Array(rows * rank);
    for (let row = 0; row < rows; row++)
      b.set(update.b.subarray(row * update.rank, (row + 1) * update.rank), row * rank);
    add(`${name}.lora_A.weight`, [rank, cols], a);
    add(`${name}.lora_B.weight`, [rows, rank], b);
  }
  const json = Buffer.from(JSON.stringify(header));
  // Spaces at the header's end make the data begin at a multiple of 8.
  const padded = Buffer.concat([json, Buffer.alloc((8 - (json.length % 8)) % 8, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const config = {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: baseModel,
    inference_mode: true,
    r: rank,
    lora_alpha: rank,
    lora_dropout: 0,
    bias: 'none',
    target_modules: updates.map(({ role, layer }) => moduleName(role, layer)),
    layers_to_transform: null,
    fan_in_fan_out: false,
    init_lora_weights: true,
    modules_to_save: null,
    use_dora: false,
    use_rslora: false,
    rank_pattern: {},
    alpha_pattern: {},
  };
  await mkdir(folder);
  await writeFile(path.join(folder, LORA_WEIGHTS_FILE), Buffer.concat([length, padded, ...parts]));
  await writeFile(path.join(folder, LORA_CONFIG_FILE), `${JSON.stringify(config, null, 2)}\n`);
}
