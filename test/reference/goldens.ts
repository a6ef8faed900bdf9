import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { ReferencePlan } from './forward.js';

const FIXTURES = path.join(__dirname, '../fixtures');

/** What test/fixtures/make_goldens.py wrote; log-probabilities in nats, float64 rounded at the ninth decimal. */
export interface Golden {
  ids: number[];
  /** Position → the whole row [vocabSize], sequential plan. */
  logProbs: Record<string, number[]>;
  /** Per plan, of ids[i + 1] after ids[0 … i]: [ids.length − 1]. */
  plans: Array<ReferencePlan & { nextLogProbs: number[] }>;
}

/** Folders of the models that have a golden.json. */
export function goldenModels(): string[] {
  return readdirSync(FIXTURES, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(path.join(FIXTURES, entry.name, 'golden.json')))
    .map((entry) => entry.name);
}

export function goldenFolder(name: string): string {
  return path.join(FIXTURES, name);
}

export function readGolden(name: string): Golden {
  return JSON.parse(readFileSync(path.join(FIXTURES, name, 'golden.json'), 'utf8')) as Golden;
}

/** Bytes of blocks of a format and the weights they hold. */
export function readBlocks(): Record<string, { bytes: string; values: number[] }> {
  return JSON.parse(readFileSync(path.join(FIXTURES, 'blocks.json'), 'utf8')) as Record<
    string,
    { bytes: string; values: number[] }
  >;
}
