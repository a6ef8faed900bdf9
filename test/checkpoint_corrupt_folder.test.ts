import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, truncateSync, unlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { expectRefused, type BrokenCheckpoint } from './support/broken_checkpoint.js';
import { writeRandomModel, type RandomModelOptions } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

const folder = tempFolder();
let made = 0;
const fresh = (extension = '') => path.join(folder, `${made++}${extension}`);
const makeFolder = (options: Partial<RandomModelOptions> = {}) =>
  writeRandomModel(fresh(), { format: 'huggingface', ...options });

function editJson(target: string, file: string, change: (json: Record<string, any>) => void): string {
  const json = JSON.parse(readFileSync(path.join(target, file), 'utf8')) as Record<string, unknown>;
  change(json);
  writeFileSync(path.join(target, file), JSON.stringify(json));
  return target;
}

const INDEX = 'model.safetensors.index.json';
const Q_PROJ = 'model.layers.1.self_attn.q_proj.weight';

describe('a broken checkpoint gives one coded error that names what is wrong', () => {
  const cases: BrokenCheckpoint[] = [
    [
      'config.json cut',
      () => {
        const target = makeFolder();
        truncateSync(path.join(target, 'config.json'), 20);
        return target;
      },
      'INVALID_CHECKPOINT',
      'not valid JSON',
    ],
    [
      'config.json of a million arrays',
      () =>
        editJson(makeFolder(), 'config.json', (json) => void (json.a = Array.from({ length: 1_000_000 }, () => []))),
      'INVALID_CHECKPOINT',
      'arrays and objects',
    ],
    [
      'config.json of 17 MB',
      () => {
        const target = makeFolder();
        truncateSync(path.join(target, 'config.json'), 17 * 2 ** 20);
        return target;
      },
      'INVALID_CHECKPOINT',
      'at most 16777216 are expected',
    ],
    [
      'config.json a folder',
      () => {
        const target = makeFolder();
        rmSync(path.join(target, 'config.json'));
        mkdirSync(path.join(target, 'config.json'));
        return target;
      },
      'FILE_NOT_FOUND',
      'not a regular file',
    ],
    [
      'shard missing',
      () => {
        const target = makeFolder({ shards: 3 });
        unlinkSync(path.join(target, 'model-00002-of-00003.safetensors'));
        return target;
      },
      'FILE_NOT_FOUND',
      'model-00002-of-00003.safetensors',
    ],
    [
      'tensor missing from its shard',
      () =>
        editJson(
          makeFolder({ shards: 2 }),
          INDEX,
          (json) => void (json.weight_map[Q_PROJ] = 'model-00002-of-00002.safetensors'),
        ),
      'INVALID_CHECKPOINT',
      Q_PROJ,
    ],
    [
      'shard outside the folder',
      () =>
        editJson(makeFolder({ shards: 2 }), INDEX, (json) => void (json.weight_map[Q_PROJ] = '../secret.safetensors')),
      'INVALID_CHECKPOINT',
      'same folder',
    ],
    [
      'shard of another kind',
      () => editJson(makeFolder({ shards: 2 }), INDEX, (json) => void (json.weight_map[Q_PROJ] = 'config.json')),
      'INVALID_CHECKPOINT',
      'same folder',
    ],
    [
      'index without a map',
      () => editJson(makeFolder({ shards: 2 }), INDEX, (json) => void (json.weight_map = [])),
      'INVALID_CHECKPOINT',
      'weight_map',
    ],
    [
      'index with an empty map',
      () => editJson(makeFolder({ shards: 2 }), INDEX, (json) => void (json.weight_map = {})),
      'INVALID_CHECKPOINT',
      'no tensors',
    ],
  ];

  it('a pipe in the place of a file does not hang', async ({ skip }) => {
    if (process.platform === 'win32') skip('another system: Windows has no named pipes in folders');
    const target = makeFolder();
    const file = path.join(target, 'model.safetensors');
    unlinkSync(file);
    execFileSync('mkfifo', [file]);
    await expect(openCheckpoint(target)).rejects.toMatchObject({
      code: 'FILE_NOT_FOUND',
      message: expect.stringContaining('not a regular file'),
    });
  });

  it.each(cases)('%s', expectRefused);
});
