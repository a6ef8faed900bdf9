import { copyFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { loadModel } from '../lib/model/load.js';
import type { LoadOptions } from '../lib/engine/load_options.js';
import type { Model } from '../lib/model/model.js';
import { text, u32, type GgufEntry } from '../tools/gguf/gguf_writer.mjs';
import { cqil } from './support/cli.js';
import { expectRejection } from './support/expect_code.js';
import { writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';
import { TINY_JSON, tinyTokenizer } from './support/tiny_tokenizer.js';
import { vocabularyFolder } from './support/vocabularies.js';

const VOCAB = 1024;
const root = tempFolder();
let made = 0;

interface Files {
  /** More of config.json. */
  config?: Record<string, unknown>;
  generation?: unknown;
  /** Replaces what tokenizer_config.json says; null takes an entry away. */
  tokenizer?: Record<string, unknown>;
  tokenizerJson?: false;
}

/** A folder with random weights and the SentencePiece vocabulary of the fixtures: `<s>` is 1, `</s>` is 2. */
function folder({ config, generation, tokenizer = {}, tokenizerJson }: Files): string {
  const target = writeRandomModel(path.join(root, `model${made++}`), {
    format: 'huggingface',
    shape: { vocabSize: VOCAB },
    config,
  });
  if (tokenizerJson !== false)
    copyFileSync(path.join(vocabularyFolder('sentencepiece'), 'tokenizer.json'), path.join(target, 'tokenizer.json'));
  writeFileSync(
    path.join(target, 'tokenizer_config.json'),
    JSON.stringify({ bos_token: '<s>', add_bos_token: true, ...tokenizer }),
  );
  if (generation !== undefined)
    writeFileSync(
      path.join(target, 'generation_config.json'),
      typeof generation === 'string' ? generation : JSON.stringify(generation),
    );
  return target;
}

describe('the end of a text', () => {
  const open: Model[] = [];
  afterEach(async () => {
    await Promise.all(open.splice(0).map((model) => model.dispose()));
  });
  async function load(target: string, options: LoadOptions = {}): Promise<Model> {
    const model = await loadModel(target, { threads: 1, ...options });
    open.push(model);
    return model;
  }
  /** What a model gives that is made to choose this token. */
  const forced = async (model: Model, token: number) => {
    const {
      tokens,
      finishReason,
      text: shown,
    } = await model.generate([1, 5], { temperature: 0, maxTokens: 3, logitBias: { [token]: 1e4 } });
    return { tokens, finishReason, text: shown };
  };

  it.each<[string, Files, number[]]>([
    ['a number in config.json', { config: { eos_token_id: 2 } }, [2]],
    ['a list in config.json', { config: { eos_token_id: [400, 401] } }, [400, 401]],
    [
      'a generation_config.json without it',
      { config: { eos_token_id: 400 }, generation: { temperature: 1, eos_token_id: null } },
      [400],
    ],
    [
      'a generation_config.json, which comes first',
      { config: { eos_token_id: 400 }, generation: { eos_token_id: [500] } },
      [500],
    ],
    ['all of them', { tokenizer: { eos_token: '</s>' }, config: { eos_token_id: 400 } }, [2, 400]],
  ])('is known from %s', async (_, files, ids) => {
    const model = await load(folder({ tokenizer: {}, ...files }));
    // </s> ends a text by its name alone.
    expect(new Set(model.tokenizer.eosTokenIds)).toEqual(new Set([...ids, 2]));
    expect(model.eosTokenIds).toEqual(model.tokenizer.eosTokenIds);
    expect(await forced(model, ids[0]!)).toEqual({ tokens: [ids[0]], finishReason: 'eos', text: '' });
  });

  it.each<[string, () => string, number[]]>([
    ['config.json', () => folder({ config: { eos_token_id: [7, 9999, -1] }, tokenizerJson: false }), [7]],
    [
      'generation_config.json',
      () => folder({ config: { eos_token_id: 8 }, generation: { eos_token_id: 7 }, tokenizerJson: false }),
      [7],
    ],
    [
      'config.json beside a broken generation_config.json',
      () => folder({ config: { eos_token_id: 7 }, generation: '{' }),
      [7],
    ],
    ['no file at all', () => folder({ tokenizerJson: false }), []],
    [
      'a GGUF file',
      () =>
        gguf({
          'tokenizer.ggml.model': text('unheard-of'),
          'tokenizer.ggml.eos_token_id': u32(7),
          'tokenizer.ggml.eot_token_id': u32(9),
          'tokenizer.ggml.eom_token_id': u32(2 ** 32 - 1),
        }),
      [7, 9],
    ],
  ])('is known without a usable tokenizer from %s', async (_, target, ids) => {
    const model = await load(target());
    expect(() => model.tokenizer).toThrow(expect.objectContaining({ code: expect.stringMatching(/^INVALID_/) }));
    expect(model.eosTokenIds).toEqual(ids);
    expect((await forced(model, 7)).finishReason).toBe(ids.includes(7) ? 'eos' : 'length');
  });

  function gguf(metadata: Record<string, GgufEntry>): string {
    return writeRandomModel(path.join(root, `model${made++}.gguf`), {
      format: 'gguf',
      shape: { vocabSize: VOCAB },
      metadata,
    });
  }

  it.each<[string, () => string, RegExp]>([
    [
      'an eos_token that the vocabulary lacks',
      () => folder({ tokenizer: { eos_token: '<|im_end|>' } }),
      /^The tokenizer's eos_token is "<\|im_end\|>", which the vocabulary does not have; what ends a generation is 2\.$/,
    ],
    [
      'an id that the model lacks',
      () => folder({ config: { eos_token_id: [VOCAB, 2] } }),
      /^The model's eos_token_id holds 1024, expected ids below 1024; what ends a generation is 2\.$/,
    ],
    ['an id that is none', () => folder({ generation: { eos_token_id: 'two' } }), /holds "two"/],
    [
      'an id in a GGUF file that its vocabulary lacks',
      () =>
        writeRandomModel(path.join(root, `model${made++}.gguf`), {
          format: 'gguf',
          vocabulary: true,
          shape: { vocabSize: 300 },
          metadata: { 'tokenizer.ggml.eos_token_id': u32(5000) },
        }),
      /eos_token_id holds 5000/,
    ],
  ])('that cannot be followed is told: %s', async (_, target, message) => {
    const told: string[] = [];
    const model = await load(target(), { onWarning: (warning) => told.push(warning) });
    expect(told).toEqual(model.warnings);
    expect(told).toEqual([expect.stringMatching(message)]);
  });

  it('and a tokenizer of more ids than the model has rows is told, and refused where a text takes one of them', async () => {
    const target = writeRandomModel(path.join(root, `model${made++}`), {
      format: 'huggingface',
      shape: { vocabSize: 4, contextLength: 32 },
    });
    writeFileSync(path.join(target, 'tokenizer.json'), JSON.stringify(TINY_JSON));
    const model = await load(target);
    expect(model.warnings).toEqual([
      'The tokenizer has ids up to 5, and the model 4 rows; texts that take an id beyond them are refused.',
    ]);
    await expectRejection(
      'INVALID_TOKENIZER',
      model.generate('b a', { maxTokens: 1 }),
      /gives the id 4 \("Ġa"\), and the model has 4 rows: they do not belong together/,
    );
    expect((await model.generate('b', { maxTokens: 1 })).tokens).toHaveLength(1);
  });

  it('and a beginning that cannot be put before a text are told', async () => {
    const warnings = async (config: object) => (await tinyTokenizer({}, config)).warnings;
    expect(await warnings({ bos_token: '<b>', add_bos_token: true })).toEqual([
      `The tokenizer's bos_token is "<b>", which the vocabulary does not have, though add_bos_token is true; ` +
        'nothing is put before a text.',
    ]);
    expect(await warnings({ bos_token: '<b>', eos_token: '<end>' })).toEqual([]);
    expect(await warnings({ eos_token: { content: '<e>' } })).toEqual([
      `The tokenizer's eos_token is "<e>", which the vocabulary does not have; no token ends a generation.`,
    ]);
  });

  it('is told as a warning of the process unless onWarning takes it, and on the command line', async () => {
    const target = folder({ tokenizer: { eos_token: '<|im_end|>' } });
    const warned = new Promise<Error>((resolve) => process.once('warning', resolve));
    await load(target);
    expect(await warned).toMatchObject({ code: 'CQIL_TOKENIZER', message: expect.stringContaining('<|im_end|>') });
    const { code, stderr } = await cqil(['generate', target, '-p', 'a', '-n', '2', '--threads', '1']);
    expect(code).toBe(0);
    expect(stderr).toMatch(/^cqil: warning: The tokenizer's eos_token is "<\|im_end\|>"/m);
    await expectRejection(
      'INVALID_ARGUMENT',
      loadModel(target, { onWarning: 'print' as never }),
      /^onWarning is 'print'; expected a function\.$/,
    );
    expect((await load(folder({ tokenizer: { eos_token: '</s>' } }))).warnings).toEqual([]);
  });

  describe('of a turn', () => {
    it('is a stop string that names a control token', async () => {
      const model = await load(folder({ tokenizer: { eos_token: '</s>' } }));
      const logitBias = { 1: 1e4 };
      const options = { temperature: 0, maxTokens: 3, logitBias };
      expect(await model.generate('a', options)).toMatchObject({ finishReason: 'length', tokens: [1, 1, 1], text: '' });
      for (const stop of ['<s>', ['q', '<s>'], '<s><s>']) {
        const stopped = await model.generate('a', { ...options, stop });
        expect([stopped.finishReason, stopped.tokens.length]).toEqual(['stop', stop === '<s><s>' ? 2 : 1]);
      }
      expect(await model.generate('a', { ...options, stop: ['s', '<', '>'] })).toMatchObject({
        finishReason: 'length',
      });
    });
  });

  it('a text goes on in a session as it is written', async () => {
    const model = await load(folder({ tokenizer: { eos_token: '</s>' }, config: {} }));
    const { tokenizer } = model;
    const greedy = { temperature: 0, maxTokens: 6 };
    const whole = await model.generate('The red sea', greedy);
    const session = model.createSession();
    await session.prefill(tokenizer.encode('The red'));
    const before = session.position;
    const goneOn = await model.generate(' sea', { ...greedy, session });
    expect(goneOn.usage.promptTokens).toBe(tokenizer.encode('The red sea').length - before);
    expect([goneOn.tokens, goneOn.text]).toEqual([whole.tokens, whole.text]);
    session.truncate(before);
    const joined = await model.generate('sea', { ...greedy, session });
    expect(joined.usage.promptTokens).toBe(tokenizer.encode('sea', { addSpecialTokens: false, after: 400 }).length);

    // After nothing but BOS a text begins.
    session.truncate(1);
    expect((await model.generate('The red sea', { ...greedy, session })).tokens).toEqual(whole.tokens);
    expect((await model.generate('The red sea', { ...greedy, session: (session.truncate(1), session) })).text).toBe(
      whole.text,
    );
  });
});
