import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { LORA_CONFIG_FILE, LORA_WEIGHTS_FILE } from '../../checkpoint/lora.js';
import type { Checkpoint } from '../../checkpoint/types.js';
import type { Plan } from '../../plan/plan.js';

const SAMPLES = 64;
const SAMPLE_BYTES = 4096;

/**
 * 12 hexadecimal digits that tell a model from others: SHA-256 of its shape and of its weight files' names, sizes and
 * pieces spread over their content. Reading all of a large model would take longer than many an evaluation.
 */
export async function fingerprint({ config, files }: Pick<Checkpoint, 'config' | 'files'>): Promise<string> {
  return digest(JSON.stringify({ ...config, ropeFrequencies: Array.from(config.ropeFrequencies) }), files);
}

/** What tells the adapters of plans from others, in the order of the plans that have one. */
export async function adapterFingerprints(plans: readonly Plan[]): Promise<string[]> {
  const folders = plans.flatMap(({ adapter }) => adapter ?? []);
  return Promise.all(
    folders.map((folder) =>
      digest(
        '',
        [LORA_CONFIG_FILE, LORA_WEIGHTS_FILE].map((name) => path.join(folder, name)),
      ),
    ),
  );
}

async function digest(start: string, files: readonly string[]): Promise<string> {
  const hash = createHash('sha256').update(start);
  for (const name of files) {
    const file = await open(name);
    try {
      const { size } = await file.stat();
      hash.update(`\n${path.basename(name)} ${size}\n`);
      const buffer = Buffer.alloc(SAMPLE_BYTES);
      for (let i = 0; i < SAMPLES; i++) {
        const { bytesRead } = await file.read(
          buffer,
          0,
          SAMPLE_BYTES,
          Math.floor((Math.max(0, size - SAMPLE_BYTES) * i) / (SAMPLES - 1)),
        );
        hash.update(buffer.subarray(0, bytesRead));
      }
    } finally {
      await file.close();
    }
  }
  return hash.digest('hex').slice(0, 12);
}
