import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, it } from 'vitest';
import { edit, expectRefused, type BrokenCheckpoint } from './support/broken_checkpoint.js';
import { writeRandomModel, type RandomModelOptions } from './support/random_model.js';
import { safetensorsFile } from './support/safetensors_writer.js';
import { tempFolder } from './support/temp_folder.js';

const folder = tempFolder();
let made = 0;
const fresh = (extension = '') => path.join(folder, `${made++}${extension}`);
const makeFolder = (options: Partial<RandomModelOptions> = {}) =>
  writeRandomModel(fresh(), { format: 'huggingface', ...options });

/** A whole model folder whose safetensors header is changed before it is written. */
function withHeader(change: (json: Record<string, any>) => unknown): string {
  const target = makeFolder();
  const file = path.join(target, 'model.safetensors');
  const bytes = readFileSync(file);
  const headerLength = Number(bytes.readBigUInt64LE());
  const json = JSON.parse(bytes.toString('utf8', 8, 8 + headerLength)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const data = bytes.subarray(8 + headerLength);
  const entries = Object.entries(json)
    .filter(([name]) => name !== '__metadata__')
    .map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [from, to],
        },
      ]) => ({ name, dtype, shape, data: data.subarray(from, to) }),
    );
  writeFileSync(
    file,
    safetensorsFile(entries, (header) => change(header) ?? header),
  );
  return target;
}

const Q_PROJ = 'model.layers.1.self_attn.q_proj.weight';
const rename = (json: Record<string, unknown>, from: string, to: string) => {
  json[to] = json[from];
  delete json[from];
};

describe('a broken checkpoint gives one coded error that names what is wrong', () => {
  const cases: BrokenCheckpoint[] = [
    [
      'safetensors cut',
      () => {
        const target = makeFolder();
        const file = path.join(target, 'model.safetensors');
        truncateSync(file, readFileSync(file).length - 1);
        return target;
      },
      'INVALID_CHECKPOINT',
      'truncated',
    ],
    [
      'safetensors header longer than the file',
      () => edit(path.join(makeFolder(), 'model.safetensors'), (bytes) => bytes.writeUInt32LE(99_000_000)),
      'INVALID_CHECKPOINT',
      'ends before the header',
    ],
    [
      'safetensors header length 2^63',
      () => {
        const target = makeFolder();
        edit(path.join(target, 'model.safetensors'), (bytes) => bytes.writeBigUInt64LE(2n ** 63n));
        return target;
      },
      'INVALID_CHECKPOINT',
      '9223372036854775808',
    ],
    [
      'safetensors header no JSON',
      () => {
        const target = makeFolder();
        edit(path.join(target, 'model.safetensors'), (bytes) => bytes.write('}', 9));
        return target;
      },
      'INVALID_CHECKPOINT',
      'not valid JSON',
    ],
    [
      'safetensors header no UTF-8',
      () => {
        const target = makeFolder();
        edit(path.join(target, 'model.safetensors'), (bytes) => bytes.writeUInt8(0xff, 12));
        return target;
      },
      'INVALID_CHECKPOINT',
      'UTF-8',
    ],
    ['safetensors header no object', () => withHeader(() => [1]), 'INVALID_CHECKPOINT', 'an array'],
    [
      'safetensors entry no object',
      () => withHeader((json) => void (json[Q_PROJ] = null)),
      'INVALID_CHECKPOINT',
      'q_proj',
    ],
    [
      'safetensors shape negative',
      () => withHeader((json) => void (json[Q_PROJ].shape = [-32, -32])),
      'INVALID_CHECKPOINT',
      'wrongly',
    ],
    [
      'safetensors shape against bytes',
      () => withHeader((json) => void (json[Q_PROJ].shape = [32, 33])),
      'INVALID_CHECKPOINT',
      'takes 4224',
    ],
    [
      'safetensors offsets backwards',
      () => withHeader((json) => void json[Q_PROJ].data_offsets.reverse()),
      'INVALID_CHECKPOINT',
      'wrongly',
    ],
    [
      'safetensors overlapping',
      () =>
        withHeader(
          (json) => void (json[Q_PROJ].data_offsets = json['model.layers.0.self_attn.q_proj.weight'].data_offsets),
        ),
      'INVALID_CHECKPOINT',
      'overlapping',
    ],
    ['safetensors hole', () => withHeader((json) => void delete json[Q_PROJ]), 'INVALID_CHECKPOINT', 'hole'],
    [
      'safetensors type and shape changed together',
      () => withHeader((json) => void Object.assign(json[Q_PROJ], { dtype: 'F8_E4M3', shape: [32, 128] })),
      'INVALID_CHECKPOINT',
      '[32, 32] is expected',
    ],
    [
      'safetensors of half a million tensors',
      () =>
        withHeader((json) =>
          Object.assign(
            json,
            Object.fromEntries(
              Array.from({ length: 500_000 }, (_, i) => [`a${i}`, { dtype: 'F32', shape: [0], data_offsets: [0, 0] }]),
            ),
          ),
        ),
      'INVALID_CHECKPOINT',
      'arrays and objects',
    ],
    [
      'safetensors unheard-of type',
      () => withHeader((json) => void (json[Q_PROJ].dtype = 'F4')),
      'UNSUPPORTED_MODEL',
      '"F4"',
    ],
    [
      'a tensor missing',
      () => withHeader((json) => rename(json, Q_PROJ, 'other')),
      'INVALID_CHECKPOINT',
      `no tensor "${Q_PROJ}" of shape [32, 32]`,
    ],
    [
      'a tensor under both of its names',
      () => withHeader((json) => rename(json, 'lm_head.weight', 'embed_tokens.weight')),
      'INVALID_CHECKPOINT',
      'mean the same',
    ],
    [
      'a tensor of another architecture',
      () => withHeader((json) => rename(json, Q_PROJ, 'model.layers.1.pre_feedforward_layernorm.weight')),
      'UNSUPPORTED_MODEL',
      'pre_feedforward_layernorm',
    ],
    [
      'biases the configuration does not mention',
      () => makeFolder({ attentionBias: true, config: { attention_bias: false } }),
      'INVALID_CHECKPOINT',
      'bias',
    ],
    [
      'biases that are not there',
      () => makeFolder({ config: { attention_bias: true } }),
      'INVALID_CHECKPOINT',
      'q_proj.bias',
    ],
    [
      'no output projection',
      () => makeFolder({ shape: { tied: true }, config: { tie_word_embeddings: false } }),
      'INVALID_CHECKPOINT',
      'lm_head.weight',
    ],
  ];

  it.each(cases)('%s', expectRefused);
});
