import path from 'node:path';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { cqil } from './support/cli.js';
import { writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

interface Row {
  plan: unknown;
  execution: string;
  phases: number;
  waits: number;
  predictedMsPerToken: number;
  measuredMsPerToken?: number;
}

const folder = tempFolder();
const model = path.join(folder, 'model.gguf');
const LATENCY = ['plan', 'latency', model, '--backend', 'cpu', '--threads', '2', '--seconds', '0.1'];

beforeAll(() => {
  writeRandomModel(model, {
    format: 'gguf',
    shape: { dim: 24, hiddenDim: 40, nHeads: 4, nKvHeads: 2, nLayers: 6, vocabSize: 64, contextLength: 64 },
  });
});

describe('cqil plan latency', () => {
  it('predicts each plan in each execution', async () => {
    const { code, stdout } = await cqil([...LATENCY, '--plan', 'P3-S0-E6', '--json']);
    expect(code).toBe(0);
    const { rows, position, calibration, agreement } = JSON.parse(stdout) as {
      rows: Row[];
      position: number;
      calibration: unknown;
      agreement?: unknown;
    };
    expect(rows.map(({ plan, execution, phases, waits }) => [plan, execution, phases, waits])).toEqual([
      ['sequential', 'wide', 30, 32],
      ['P3-D0-S0-E6', 'wide', 10, 12],
      ['P3-D0-S0-E6', 'lanes', 10, 6],
    ]);
    for (const { predictedMsPerToken } of rows) expect(predictedMsPerToken).toBeGreaterThan(0);
    expect(position).toBe(32);
    expect(calibration).toMatchObject({
      measured: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
      rates: { waits: expect.any(Number) },
    });
    expect(agreement).toBeUndefined();
    expect(rows[0]).not.toHaveProperty('measuredMsPerToken');
  });

  it('measures them too, and says how far off it was', async () => {
    const args = [...LATENCY, '--random', '3', '--seed', '4', '--position', '10', '--measure', '0.1'];
    const { rows, agreement, random, seed } = JSON.parse((await cqil([...args, '--json'])).stdout) as {
      rows: Row[];
      agreement: unknown;
      random: number;
      seed: number;
    };
    expect(rows.length).toBe(7);
    for (const { measuredMsPerToken } of rows) expect(measuredMsPerToken).toBeGreaterThan(0);
    expect(agreement).toMatchObject({
      error: { median: expect.any(Number), max: expect.any(Number) },
      ranking: {
        wide: {},
        lanes: {},
        fastest: { rankCorrelation: expect.any(Number), repeatability: expect.any(Number) },
      },
    });
    expect([random, seed]).toEqual([3, 4]);
    const { stdout } = await cqil([...args, '--calibrate']);
    expect(stdout).toMatch(/^plan +execution +phases +waits +predicted ms +measured ms +off by$/m);
    expect(stdout).toMatch(/^Off by [\d.]+ % in the median, [\d.]+ % at most\.\nRank correlation over 4 plans/m);
    expect(stdout).toContain('ms per token after 10 tokens; prices measured ');
  });

  it('has one execution where there is one thread, or nothing grouped', async () => {
    const { rows } = JSON.parse(
      (await cqil([...LATENCY, '--threads', '1', '--plan', 'P2-S0-E4', '--json'])).stdout,
    ) as { rows: Row[] };
    expect(rows.map(({ execution, waits }) => [execution, waits])).toEqual([
      ['wide', 0],
      ['wide', 0],
    ]);
    expect(rows[1]!.predictedMsPerToken).toBeCloseTo(rows[0]!.predictedMsPerToken, 9);
  });

  it.each([
    [['--position', '64'], /--position is 64, expected less than the model's context length, 64/],
    [['--plan', 'P2-S0-E9'], /6 layers/],
    [['--synthetic', 'smollm2-135m'], /Give a model or --synthetic, not both/],
    [['--measure', '0'], /Expected a number from 0\.1/],
    [['--random', '-1'], /Expected a whole number from 0/],
  ])('refuses %j', async (args, message) => {
    const run = await cqil([...LATENCY, ...args]);
    expect(run).toMatchObject({ stdout: '', stderr: expect.stringMatching(/^cqil: [^\n]+\n$/) });
    expect(run.stderr).toMatch(message);
    expect(run.code).not.toBe(0);
  });

  it('is interrupted', async () => {
    expect(await cqil([...LATENCY, '--calibrate'], { signal: AbortSignal.abort() })).toMatchObject({
      code: 130,
      stdout: '',
    });
  });
});

describe('cqil bench', () => {
  it('counts barriers, of auto those of what it settled on', async () => {
    const args = [
      'bench',
      model,
      '--backend',
      'cpu',
      '--threads',
      '2',
      '--plan',
      'sequential',
      '--plan',
      'P2-S0-E6',
      '--prompt-tokens',
      '2',
      '--tokens',
      '20',
      '--repeat',
      '1',
      '--json',
    ];
    const rowsOf = async (...more: string[]) =>
      (
        JSON.parse((await cqil([...args, ...more])).stdout) as {
          rows: Array<{
            execution: string;
            settledExecution: string | null;
            threads: number | null;
            barriersPerToken: number | null;
          }>;
        }
      ).rows;
    const rows = await rowsOf('--execution', 'wide', '--execution', 'lanes');
    expect(rows.map(({ settledExecution, barriersPerToken }) => [settledExecution, barriersPerToken])).toEqual([
      ['wide', 32],
      ['lanes', 32],
      ['wide', 17],
      ['lanes', 8],
    ]);
    const [sequential, pairs] = await rowsOf('--repeat', '60');
    expect(sequential).toMatchObject({
      execution: 'auto',
      settledExecution: 'wide',
      barriersPerToken: sequential!.threads === 1 ? 0 : 32,
    });
    expect(pairs).toMatchObject({
      execution: 'auto',
      barriersPerToken: pairs!.threads === 1 ? 0 : pairs!.settledExecution === 'wide' ? 17 : 8,
    });
    const short = await rowsOf('--tokens', '4', '--kv-cache', 'f16');
    expect(short[1]).toMatchObject({
      execution: 'auto',
      settledExecution: null,
      threads: null,
      barriersPerToken: null,
    });
    // Unless tests say otherwise, layers this small are computed by one thread.
    vi.stubEnv('CQIL_ALONE_BYTES', undefined);
    const alone = await rowsOf('--execution', 'wide', '--execution', 'lanes');
    expect(alone.map(({ barriersPerToken }) => barriersPerToken)).toEqual([0, 0, 0, 8]);
    vi.unstubAllEnvs();
  });
});
