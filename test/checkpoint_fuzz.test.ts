import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { CqilError } from '../lib/errors.js';
import { computedMs } from './support/event_loop.js';
import { randomUniform } from './support/random.js';
import { writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

const folder = tempFolder();
const SHAPE = { dim: 8, hiddenDim: 8, nHeads: 2, nKvHeads: 1, nLayers: 1, vocabSize: 260 };
const CASES = 1000;
const MAX_CASE_MS = 1000; // of computing, not of waiting for a core
const MAX_GROWTH_BYTES = 256 * 2 ** 20;

type Pick = (below: number) => number;

// Lengths and counts that ask for too much, or sit at an edge of an integer type.
const LENGTHS = [
  0n,
  1n,
  255n,
  2n ** 16n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 40n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 1n,
];

const MUTATIONS: Array<(bytes: Buffer, header: number, pick: Pick) => Buffer> = [
  (bytes, header, pick) => bytes.subarray(0, pick(Math.min(bytes.length, 2 * header))),
  (bytes, header, pick) => flip(bytes, header, pick, 1),
  (bytes, header, pick) => flip(bytes, header, pick, 4),
  (bytes, header, pick) => {
    bytes.writeBigUInt64LE(LENGTHS[pick(LENGTHS.length)]!, pick(header - 8));
    return bytes;
  },
  (bytes, header, pick) => {
    const at = pick(header);
    return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + pick(16))]);
  },
  (bytes, header, pick) => {
    const [at, from] = [pick(header), pick(header)];
    return Buffer.concat([bytes.subarray(0, at), bytes.subarray(from, from + 1 + pick(64)), bytes.subarray(at)]);
  },
];

function flip(bytes: Buffer, header: number, pick: Pick, count: number): Buffer {
  for (let i = 0; i < count; i++) bytes[pick(header)]! ^= 1 << pick(8);
  return bytes;
}

/**
 * Opens `target` with `file` mutated again and again; the only thing ever thrown is a CqilError. Says how often each
 * outcome came.
 */
async function fuzz(target: string, file: string, header: number, seed: number): Promise<Record<string, number>> {
  const uniform = randomUniform(seed);
  const pick: Pick = (below) => Math.floor(uniform() * below);
  const original = readFileSync(file);
  const outcomes: Record<string, number> = {};
  for (let i = 0; i < CASES; i++) {
    writeFileSync(file, MUTATIONS[i % MUTATIONS.length]!(Buffer.from(original), header, pick));
    const start = computedMs();
    const outcome = await openCheckpoint(target).then(
      () => 'opened',
      (error: unknown) => (error instanceof CqilError ? error.code : `case ${i}: ${String((error as Error).stack)}`),
    );
    expect(computedMs() - start, `case ${i}`).toBeLessThan(MAX_CASE_MS);
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
  }
  return outcomes;
}

const CODES = ['opened', 'FILE_NOT_FOUND', 'INVALID_CHECKPOINT', 'UNSUPPORTED_MODEL'];

describe('mutated checkpoints open or throw a CqilError, in bounded time and memory', { timeout: 60_000 }, () => {
  async function expectOnlyCodes(run: () => Promise<Record<string, number>>): Promise<void> {
    const before = process.memoryUsage().rss;
    const outcomes = await run();
    expect(Object.keys(outcomes).filter((outcome) => !CODES.includes(outcome))).toEqual([]);
    expect(outcomes.INVALID_CHECKPOINT).toBeGreaterThan(CASES / 10);
    expect(process.memoryUsage().rss - before).toBeLessThan(MAX_GROWTH_BYTES);
  }

  it('GGUF', async () => {
    const file = writeRandomModel(path.join(folder, 'a.gguf'), { format: 'gguf', shape: SHAPE, architecture: 'qwen3' });
    const header = readFileSync(file).indexOf('output_norm.weight') + 64;
    await expectOnlyCodes(() => fuzz(file, file, header, 1));
  });

  it('GGUF with a vocabulary', async () => {
    const file = writeRandomModel(path.join(folder, 'b.gguf'), { format: 'gguf', shape: SHAPE, vocabulary: true });
    const header = readFileSync(file).indexOf('output_norm.weight') + 64;
    await expectOnlyCodes(() => fuzz(file, file, header, 2));
  });

  it('safetensors', async () => {
    const target = writeRandomModel(path.join(folder, 'c'), { format: 'huggingface', shape: SHAPE });
    const file = path.join(target, 'model.safetensors');
    await expectOnlyCodes(() => fuzz(target, file, 8 + readFileSync(file).readUInt32LE(), 3));
  });

  it('config.json', async () => {
    const target = writeRandomModel(path.join(folder, 'd'), {
      format: 'huggingface',
      shape: SHAPE,
      config: { rope_scaling: { rope_type: 'yarn', factor: 4 } },
    });
    const file = path.join(target, 'config.json');
    await expectOnlyCodes(() => fuzz(target, file, readFileSync(file).length, 4));
  });

  it('the index of shards', async () => {
    const target = writeRandomModel(path.join(folder, 'e'), { format: 'huggingface', shape: SHAPE, shards: 2 });
    const file = path.join(target, 'model.safetensors.index.json');
    await expectOnlyCodes(() => fuzz(target, file, readFileSync(file).length, 5));
  });
});
