import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { loadModel, shippedModelPath } from '../lib/model/load.js';
import { cqil } from './support/cli.js';
import { tempFolder } from './support/temp_folder.js';

const MODEL = shippedModelPath();
const PROMPT = 'Once upon a time';
const folder = tempFolder();

function write(name: string, content: string): string {
  const file = path.join(folder, name);
  writeFileSync(file, content);
  return file;
}

/** Runs with --json and gives the one document, having seen that there is nothing else. */
async function document<T>(args: string[], stdin?: string): Promise<T> {
  const { code, stdout, stderr } = await cqil([...args, '--json'], { stdin });
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(stdout) as T;
}

interface Generated {
  text: string;
  tokens: number[];
  promptTokens: number;
  finishReason: string;
  plan: unknown;
  seed: number;
  logprobs?: Array<{ token: number; logprob: number; alternatives: unknown[] }>;
  timings: Record<string, number>;
}

describe('generate', () => {
  const generate = ['generate', MODEL, '-n', '24', '--seed', '5'];

  it('prints the same text as the document holds, and statistics on stderr', async () => {
    const json = await document<Generated>([...generate, '-p', PROMPT]);
    expect(json).toMatchObject({ finishReason: 'length', plan: 'sequential', seed: 5 });
    expect(json.tokens).toHaveLength(24);
    for (const name of ['loadMs', 'prefillMs', 'decodeMs', 'prefillTokensPerSecond', 'decodeTokensPerSecond'])
      expect(json.timings[name]).toBeGreaterThan(0);
    const streamed = await cqil([...generate, '-p', PROMPT]);
    expect(streamed).toMatchObject({ code: 0, stdout: `${json.text}\n` });
    expect(streamed.stderr).toMatch(
      /^loaded in .* \| prompt tokens .* \| generated tokens 24 in .* \| ended by length\n$/,
    );
  });

  it('takes the prompt from stdin or as token ids', async () => {
    const json = await document<Generated>([...generate, '-p', PROMPT]);
    expect((await document<Generated>([...generate, '-p', '-'], PROMPT)).tokens).toEqual(json.tokens);
    const model = await loadModel(MODEL);
    const ids = model.tokenizer.encode(PROMPT);
    await model.dispose();
    expect((await document<Generated>([...generate, '--token-ids', ids.join(',')])).tokens).toEqual(json.tokens);
    expect(json.promptTokens).toBe(ids.length);
  });

  it('reports the seed it drew, which repeats the run', async () => {
    const first = await document<Generated>(['generate', MODEL, '-n', '24', '-p', PROMPT]);
    const second = await document<Generated>([
      'generate',
      MODEL,
      '-n',
      '24',
      '-p',
      PROMPT,
      '--seed',
      String(first.seed),
    ]);
    expect(second.tokens).toEqual(first.tokens);
  });

  it('takes a plan, stop strings and log-probabilities', async () => {
    const json = await document<Generated>([
      'generate',
      MODEL,
      '-p',
      PROMPT,
      '--temperature',
      '0',
      '--plan',
      'P2-D1-S4-E12',
      '--stop',
      '.',
      '--stop',
      'zzz',
      '--logprobs',
      '2',
    ]);
    expect(json).toMatchObject({ plan: 'P2-D1-S4-E12', finishReason: 'stop' });
    expect(json.text).not.toContain('.');
    expect(json.logprobs!.map(({ token }) => token)).toEqual(json.tokens);
    expect(json.logprobs![0]!.alternatives).toHaveLength(2);
  });

  it.each([
    ['-', ': nothing came on stdin'],
    ['', ''],
  ])('says that the prompt %j is empty', async (prompt, why) => {
    const run = await cqil(['generate', MODEL, '-p', prompt, '-n', '1', '--json']);
    expect(run).toMatchObject({ code: 0, stderr: `The prompt is empty${why}; the text begins anew.\n` });
  });

  it('names the option that leaves too little room', async () => {
    const { stderr } = await cqil(['generate', MODEL, '-p', PROMPT, '--context', '4']);
    expect(stderr).toContain('The prompt leaves no room in --context 4; expected at most 3 tokens and one after them.');
  });

  it('takes a format for the KV cache', async () => {
    const greedy = ['-p', PROMPT, '-n', '24', '--temperature', '0', '--logprobs', '0'];
    const logprobs = async (kvCache: string) =>
      (await document<Generated>(['generate', MODEL, ...greedy, '--kv-cache', kvCache])).logprobs!.map(
        ({ logprob }) => logprob,
      );
    expect(await logprobs('q8_0')).not.toEqual(await logprobs('f32'));
  });

  it.each([
    [['--token-ids', '999999'], 2, 'INVALID_ARGUMENT'],
    [['-p', PROMPT, '--plan', 'P2-S0-E99'], 1, 'INVALID_PLAN'],
    [['-p', PROMPT, '--context', '4'], 1, 'CONTEXT_OVERFLOW'],
    [['-p', PROMPT, '--top-p', '0'], 2, 'INVALID_ARGUMENT'],
  ])('refuses %j', async (args, code, reason) => {
    const run = await cqil(['generate', MODEL, ...args, '--json']);
    expect(run.code).toBe(code);
    expect(JSON.parse(run.stdout)).toMatchObject({ error: { code: reason } });
    expect(run.stderr).toMatch(new RegExp(`^cqil: [^\\n]+ \\(${reason}\\)\\n$`));
  });

  it('keeps what it has when it is interrupted', async () => {
    const abort = new AbortController();
    const run = await cqil(['generate', MODEL, '-p', PROMPT, '-n', '200'], {
      signal: abort.signal,
      onOut: () => abort.abort(),
    });
    expect(run).toMatchObject({ code: 130, stderr: 'interrupted\n' });
    expect(run.stdout.length).toBeGreaterThan(1);
    const before = await cqil(['generate', MODEL, '-p', PROMPT, '--json'], { signal: AbortSignal.abort() });
    expect(before).toEqual({ code: 130, stdout: '', stderr: '' });
  });
});

describe('perplexity', () => {
  const words = PROMPT.concat(' there was a little girl who liked to play in the park with her dog. ').repeat(8);
  const file = write('words.txt', words);

  it('is the mean over windows that begin afresh', async () => {
    const json = await document<{ tokens: number; nll: number; perplexity: number; plan: string; window: number }>([
      'perplexity',
      MODEL,
      '--file',
      file,
      '--window',
      '50',
      '--plan',
      'P2-S4-E12',
    ]);
    const model = await loadModel(MODEL, { plan: 'P2-S4-E12' });
    const ids = model.tokenizer.encode(words);
    const scores: number[] = [];
    for (let from = 0; from < ids.length; from += 50) {
      const session = model.createSession();
      scores.push(...(await session.score(ids.slice(from, from + 50))));
    }
    await model.dispose();
    expect(json).toMatchObject({ plan: 'P2-D0-S4-E12', window: 50, tokens: scores.length });
    expect(json.tokens).toBe(ids.length - Math.ceil(ids.length / 50));
    expect(json.nll).toBeCloseTo(-scores.reduce((sum, score) => sum + score, 0) / scores.length, 10);
    expect(json.perplexity).toBeCloseTo(Math.exp(json.nll), 6);
  });

  it('compares plans in one table or document', async () => {
    const args = ['perplexity', MODEL, '--file', file, '--plan', 'sequential', '--plan', 'P4-S4-E12'];
    const { rows } = await document<{ rows: Array<{ plan: string; nll: number }> }>(args);
    expect(rows.map((row) => row.plan)).toEqual(['sequential', 'P4-D0-S4-E12']);
    expect(rows[1]!.nll).not.toBe(rows[0]!.nll);
    const { stdout } = await cqil(args);
    expect(stdout).toContain(`P4-D0-S4-E12  `);
    expect(stdout).toContain(rows[1]!.nll.toFixed(4));
  });

  it.each([
    [['--file', write('empty.txt', '')], /has 1 token, expected at least 2\. \(INVALID_ARGUMENT\)/],
    [['--file', file, '--window', '100000'], /context length, 512\. \(INVALID_ARGUMENT\)/],
  ])('refuses %j', async (args, reason) => {
    const run = await cqil(['perplexity', MODEL, ...args]);
    expect(run).toMatchObject({ code: 2, stdout: '', stderr: expect.stringMatching(reason) });
  });
});

describe('inspect', () => {
  it('counts bytes and phases', async () => {
    const json = await document<{
      config: { nLayers: number; ropeFrequencies: number[] };
      tensors: Array<{ bytes: number }>;
      memory: Record<string, number>;
      program: { phases: unknown[]; layerPhases: number };
    }>(['inspect', MODEL, '--plan', 'P2-S4-E12', '--context', '100', '--activations', 'float32']);
    expect(json.config).toMatchObject({ nLayers: 24 });
    expect(json.config.ropeFrequencies).toHaveLength(32);
    expect(json.program).toMatchObject({ stages: 20, layerPhases: 100 });
    expect(json.program.phases).toHaveLength(102);
    // Two float32 vectors of one head of 64 in 24 layers.
    expect(json.memory).toMatchObject({
      weights: json.tensors.reduce((sum, { bytes }) => sum + bytes, 0),
      kvFormat: 'f32',
      kvPerPosition: 12_288,
      kvCache: 1_228_800,
    });
  });

  it('counts the KV cache in the format it would have', async () => {
    const rounded = await document<{ memory: Record<string, unknown> }>([
      'inspect',
      MODEL,
      '--context',
      '100',
      '--activations',
      'int8',
    ]);
    expect(rounded.memory).toMatchObject({ kvFormat: 'f16', kvPerPosition: 6144, kvCache: 614_400 });
    const json = await document<{ memory: Record<string, unknown> }>([
      'inspect',
      MODEL,
      '--context',
      '100',
      '--kv-cache',
      'q8_0',
    ]);
    // 96 blocks of 32 a position: a scale of two bytes and 32 bytes each.
    expect(json.memory).toMatchObject({
      kvFormat: 'q8_0',
      kvPerPosition: 3264,
      kvCache: 326_400,
      kvPerPositionByFormat: { f32: 12_288, f16: 6144, q8_0: 3264 },
    });
    expect((await cqil(['inspect', MODEL])).stdout).toMatch(/^q8_0 +3\.26 kB$/m);
    expect(await cqil(['inspect', MODEL, '--kv-cache', 'q4_0'])).toMatchObject({ code: 2, stdout: '' });
  });

  it('folds the phases of a stage into a line of text', async () => {
    const { code, stdout } = await cqil(['inspect', MODEL, '--plan', 'P2-S4-E12']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^qkv attention attention_out gate_up down +4 +4 5$/m);
  });
});

describe('plan with a model', () => {
  it('takes the number of layers from it', async () => {
    expect(await document(['plan', 'make', MODEL, '--p', '2', '--s', '4', '--e', '8'])).toMatchObject({
      layers: 24,
      groups: [
        [4, 5],
        [6, 7],
      ],
    });
    expect(await cqil(['plan', 'check', 'P2-S4-E25', MODEL])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('the model has 24 layers'),
    });
  });
});

describe('bench', () => {
  it('times every plan in every mode', async () => {
    const { rows, machine } = await document<{
      rows: Array<
        Record<string, number> & {
          plan: string;
          execution: string;
          msPerToken: { min: number; median: number; max: number };
        }
      >;
      machine: Record<string, unknown>;
    }>([
      'bench',
      MODEL,
      '--plan',
      'sequential',
      '--plan',
      'P2-S4-E12',
      '--execution',
      'wide',
      '--execution',
      'lanes',
      '--prompt-tokens',
      '16',
      '--tokens',
      '4',
      '--repeat',
      '2',
      '--activations',
      'float32',
    ]);
    expect(rows.map(({ plan, execution, phases }) => [plan, execution, phases])).toEqual([
      ['sequential', 'wide', 120],
      ['sequential', 'lanes', 120],
      ['P2-D0-S4-E12', 'wide', 100],
      ['P2-D0-S4-E12', 'lanes', 100],
    ]);
    for (const row of rows) {
      expect(row.msPerToken.min).toBeGreaterThan(0);
      expect(row.msPerToken.median).toBeGreaterThanOrEqual(row.msPerToken.min);
      expect(row.msPerToken.max).toBeGreaterThanOrEqual(row.msPerToken.median);
      expect(row.prefillTokensPerSecond).toBeGreaterThan(0);
      expect(row.bandwidthGBs).toBeCloseTo(row.bytesPerToken! / row.msPerToken.median / 1e6, 9);
    }
    // All weights, because the embedding is tied to the output, and keys and values of 18 positions.
    expect(rows[0]!.bytesPerToken).toBe((await weightBytes()) + 18 * 12_288);
    expect(machine).toMatchObject({ node: process.versions.node, backend: 'cpu', kvCache: 'f32' });
  });

  it('counts what a smaller KV cache saves', async () => {
    const { rows, machine } = await document<{ rows: Array<{ bytesPerToken: number }>; machine: unknown }>([
      'bench',
      MODEL,
      '--prompt-tokens',
      '16',
      '--tokens',
      '4',
      '--repeat',
      '1',
      '--kv-cache',
      'f16',
    ]);
    expect(rows[0]!.bytesPerToken).toBe((await weightBytes()) + 18 * 6144);
    expect(machine).toMatchObject({ kvCache: 'f16' });
  });

  async function weightBytes(): Promise<number> {
    const { tensors } = await openCheckpoint(MODEL);
    return tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);
  }
});

describe('demo', () => {
  it('compares two plans: quality on the shipped model, speed on a deep shape', async () => {
    type Spread = { min: number; median: number; max: number };
    type Demo = {
      prompt: string;
      quality: Array<{
        plan: string;
        text: string;
        phases: number;
        perplexity: { all: number; min: number; max: number };
      }>;
      speed: {
        rows: Array<{ plan: string; phases: number; msPerToken: Spread; change: Spread }>;
        rounds: number;
        certain: boolean;
        busy: boolean;
      };
    };
    const { prompt, quality, speed } = await document<Demo>(['demo', '--seconds', '0.1']);
    expect(prompt).toBe(PROMPT);
    expect(quality.map(({ plan, phases }) => [plan, phases])).toEqual([
      ['sequential', 120],
      ['P2-D0-S6-E18', 90],
    ]);
    expect(quality[0]!.text).not.toBe(quality[1]!.text);
    for (const {
      perplexity: { all, min, max },
    } of quality)
      expect(min < all && all < max).toBe(true);
    expect(speed.rows.map(({ plan, phases }) => [plan, phases])).toEqual([
      ['sequential', 150],
      ['P2-D0-S7-E23', 110],
    ]);
    expect(speed.rounds).toBe(8);
    expect([speed.certain, speed.busy].map((value) => typeof value)).toEqual(['boolean', 'boolean']);
    for (const { msPerToken } of speed.rows)
      expect(0 < msPerToken.min && msPerToken.min <= msPerToken.median && msPerToken.median <= msPerToken.max).toBe(
        true,
      );
    expect(speed.rows[0]!.change).toEqual({ min: 0, median: 0, max: 0 });
  }, 240_000);
});

describe('doctor', () => {
  it('knows the machine', async () => {
    const report = await document<Record<string, unknown>>(['doctor']);
    expect(report).toMatchObject({
      addon: { loaded: true, reason: null },
      cores: expect.any(Number) as number,
      cuda: { available: expect.any(Boolean) as boolean },
    });
    expect((await cqil(['doctor'])).stdout).toMatch(/instruction sets {2}.*\(used\)/);
  });
});
