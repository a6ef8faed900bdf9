import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { EncodedStrings } from '../lib/checkpoint/encoded_strings.js';
import { readGguf } from '../lib/checkpoint/gguf.js';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import type { GgufStrings, GgufValue } from '../lib/checkpoint/types.js';
import { array, ggufFile, text, u32 } from '../tools/gguf/gguf_writer.mjs';
import { expectRejection } from './support/expect_code.js';
import { writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

const folder = tempFolder();
let made = 0;
const fresh = (extension = '') => path.join(folder, `${made++}${extension}`);

describe('tokenizer sources', () => {
  const sourceOf = async (files: Record<string, unknown>) => {
    const target = writeRandomModel(fresh(), { format: 'huggingface' });
    for (const [name, content] of Object.entries(files))
      writeFileSync(path.join(target, name), typeof content === 'string' ? content : JSON.stringify(content));
    return (await openCheckpoint(target)).readTokenizer();
  };

  it('are gathered from the folder', async () => {
    expect(await sourceOf({})).toMatchObject({ kind: 'none', reason: expect.stringContaining('no tokenizer.json') });
    const files = {
      'tokenizer.json': { model: {} },
      'tokenizer_config.json': { a: 1 },
      'generation_config.json': { b: 2 },
    };
    expect(await sourceOf({ ...files, 'chat_template.jinja': '{{ 1 }}' })).toEqual({
      kind: 'huggingface',
      json: { model: {} },
      config: { a: 1 },
      generationConfig: { b: 2 },
      chatTemplate: '{{ 1 }}',
    });
    expect(await sourceOf({ ...files, 'chat_template.json': { chat_template: '{{ 2 }}' } })).toMatchObject({
      chatTemplate: '{{ 2 }}',
    });
    await expectRejection(
      'INVALID_TOKENIZER',
      sourceOf({ 'tokenizer.json': '{"model"' }),
      /tokenizer\.json is not valid JSON/,
    );
  });

  it('a GGUF file without a vocabulary has none, one with a vocabulary keeps its metadata', async () => {
    expect(
      (await (await openCheckpoint(writeRandomModel(fresh('.gguf'), { format: 'gguf' }))).readTokenizer()).kind,
    ).toBe('none');
    const checkpoint = await openCheckpoint(
      writeRandomModel(fresh('.gguf'), { format: 'gguf', vocabulary: true, shape: { vocabSize: 300 } }),
    );
    const tokenizer = await checkpoint.readTokenizer();
    expect(tokenizer.kind === 'gguf' && tokenizer.metadata.get('tokenizer.ggml.tokens')).toHaveLength(300);
  });
});

describe('GGUF metadata', () => {
  it('keeps every type of value', async () => {
    const file = fresh('.gguf');
    const metadata = {
      a: { type: 'u8', value: 255 },
      b: { type: 'i8', value: -1 },
      c: { type: 'u16', value: 65535 },
      d: { type: 'i16', value: -2 },
      e: u32(2 ** 32 - 1),
      f: { type: 'i32', value: -3 },
      g: { type: 'f32', value: 0.5 },
      h: { type: 'bool', value: true },
      i: text('zwölf ▁'),
      j: { type: 'u64', value: 2n ** 53n - 1n },
      k: { type: 'u64', value: 2n ** 64n - 1n },
      l: { type: 'i64', value: -4n },
      m: { type: 'f64', value: 0.1 },
      n: array('u8', [1, 2]),
      o: array('i32', [-1, 2]),
      p: array('u32', [7]),
      q: array('f32', [0.25]),
      r: array('u64', [1n]),
      s: array('bool', [true, false]),
      t: array('string', ['', 'zwölf']),
      u: array('array', [array('i16', [-5]), array('u8', [6])]),
      v: array('f64', []),
    } as const;
    writeFileSync(file, ggufFile({ version: 2, alignment: 64, metadata, tensors: [] }));
    const gguf = await readGguf(file);
    expect(gguf.version).toBe(2);
    expect(gguf.dataOffset % 64).toBe(0);
    const decoded = (value: GgufValue) => (value instanceof EncodedStrings ? [...value] : value);
    expect([...gguf.metadata.values()].map(decoded)).toEqual([
      255,
      -1,
      65535,
      -2,
      2 ** 32 - 1,
      -3,
      0.5,
      true,
      'zwölf ▁',
      Number.MAX_SAFE_INTEGER,
      2n ** 64n - 1n,
      -4,
      0.1,
      Uint8Array.of(1, 2),
      Int32Array.of(-1, 2),
      Uint32Array.of(7),
      Float32Array.of(0.25),
      BigUint64Array.of(1n),
      [true, false],
      ['', 'zwölf'],
      [Int16Array.of(-5), Uint8Array.of(6)],
      Float64Array.of(),
      64,
    ]);
  });

  it('keeps the tokens and merges of a vocabulary of 128k, which stand in many windows, and others longer than one', async () => {
    const file = fresh('.gguf');
    const tokens = Array.from({ length: 128_256 }, (_, i) => (i % 50_000 === 7 ? 'ö'.repeat(10 * i) : `token ${i}`));
    const merges = Array.from({ length: 280_147 }, (_, i) => `left${i} right${i}`);
    writeFileSync(
      file,
      ggufFile({
        metadata: {
          tokens: array('string', tokens),
          merges: array('string', merges),
          types: array(
            'i32',
            tokens.map(() => 1),
          ),
        },
        tensors: [],
      }),
    );
    const { metadata } = await readGguf(file);
    expect([...(metadata.get('tokens') as GgufStrings)]).toEqual(tokens);
    expect([...(metadata.get('merges') as GgufStrings)]).toEqual(merges);
  });
});
