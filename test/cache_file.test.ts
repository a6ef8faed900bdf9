import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { cacheFile, cacheFolder, readCache, writeCache } from '../lib/util/cache_file.js';
import { timingIdentity } from '../lib/engine/cache_identity.js';
import { syntheticCheckpoint } from '../lib/checkpoint/synthetic.js';
import { ExecutionChoices } from '../lib/engine/execution_choices.js';
import { calibrateAnew, calibration, findCalibration, typicalPosition } from '../lib/analysis/latency/calibration.js';
import { loadModel, loadSyntheticModel } from '../lib/model/load.js';
import { describeMachine } from '../lib/engine/machine.js';
import type { Model } from '../lib/model/model.js';
import type { MachineInfo } from '../lib/engine/native.js';
import { resolvePlan } from '../lib/plan/plan.js';
import { expectRejection } from './support/expect_code.js';
import { writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

const folder = tempFolder();
const before = process.env.CQIL_CACHE_DIR;
let cache: string;
let count = 0;

beforeEach(() => {
  cache = path.join(folder, `cache-${count++}`);
  process.env.CQIL_CACHE_DIR = cache;
});
afterEach(() => {
  process.env.CQIL_CACHE_DIR = before;
  vi.restoreAllMocks();
});

describe('the folder for caches', () => {
  it("is the one the environment names, or the platform's own", () => {
    const home = os.homedir();
    expect(cacheFolder({ CQIL_CACHE_DIR: '/somewhere' }, 'darwin')).toBe('/somewhere');
    expect(cacheFolder({ XDG_CACHE_HOME: '/xdg' }, 'linux')).toBe('/xdg/cqil');
    expect(cacheFolder({ XDG_CACHE_HOME: 'relative' }, 'linux')).toBe(path.join(home, '.cache/cqil'));
    expect(cacheFolder({ CQIL_CACHE_DIR: '' }, 'freebsd')).toBe(path.join(home, '.cache/cqil'));
    expect(cacheFolder({}, 'darwin')).toBe(path.join(home, 'Library/Caches/cqil'));
    expect(cacheFolder({ LOCALAPPDATA: path.join(home, 'Local') }, 'win32')).toBe(path.join(home, 'Local/cqil/Cache'));
  });

  it('is none for a user without a home, unless the environment names it', () => {
    vi.spyOn(os, 'homedir').mockImplementation(() => {
      throw new Error('uv_os_homedir returned ENOENT');
    });
    for (const platform of ['linux', 'darwin', 'win32']) expect(cacheFolder({}, platform)).toBeUndefined();
    expect(cacheFolder({ XDG_CACHE_HOME: '/xdg' }, 'linux')).toBe('/xdg/cqil');
    expect(cacheFolder({ LOCALAPPDATA: '/local' }, 'win32')).toBe('/local/cqil/Cache');
    vi.spyOn(os, 'homedir').mockReturnValue('');
    expect(cacheFolder({}, 'linux')).toBeUndefined();
  });
});

describe('a cached value', () => {
  const identity = { model: 'a', threads: 2 };

  it('is given back for what it was written for, and nothing else', async () => {
    expect(await readCache('kind', identity)).toBeUndefined();
    expect(await writeCache('kind', identity, { x: 1.5 })).toBe(true);
    expect(await readCache('kind', identity)).toEqual({ x: 1.5 });
    expect(await readCache('kind', { ...identity, threads: 3 })).toBeUndefined();
    expect(await readCache('other', identity)).toBeUndefined();
    await writeCache('kind', identity, { x: 2 });
    expect(await readCache('kind', identity)).toEqual({ x: 2 });
    expect(readdirSync(cache)).toEqual([path.basename(cacheFile('kind', identity)!)]);
  });

  it.each([
    ['cut off', '{"identity":{"mod'],
    ['binary', '\0\0\0'],
    ['empty', ''],
    ['no object', 'null'],
    ['of another identity', JSON.stringify({ identity: { model: 'b', threads: 2 }, value: { x: 1 } })],
    ['too long', `{"identity":{"model":"a","threads":2},"value":"${'x'.repeat(1 << 20)}"}`],
  ])('is not taken from a file that is %s, which the next one replaces', async (_, content) => {
    mkdirSync(cache, { recursive: true });
    writeFileSync(cacheFile('kind', identity)!, content);
    expect(await readCache('kind', identity)).toBeUndefined();
    expect(await writeCache('kind', identity, 7)).toBe(true);
    expect(await readCache('kind', identity)).toBe(7);
  });

  it('is done without where nothing can be written', async () => {
    writeFileSync(cache, 'a file, not a folder');
    expect(await writeCache('kind', identity, 1)).toBe(false);
    expect(await readCache('kind', identity)).toBeUndefined();
    expect(readFileSync(cache, 'utf8')).toBe('a file, not a folder');
  });

  it('is done without for a user who has no home, in a folder that is gone', async () => {
    delete process.env.CQIL_CACHE_DIR;
    const homedir = vi.spyOn(os, 'homedir').mockImplementation(() => {
      throw new Error('uv_os_homedir returned ENOENT');
    });
    vi.stubEnv('XDG_CACHE_HOME', undefined);
    expect(await writeCache('kind', identity, 1)).toBe(false);
    expect(await readCache('kind', identity)).toBeUndefined();
    expect(homedir).toHaveBeenCalled();
    vi.spyOn(process, 'cwd').mockImplementation(() => {
      throw new Error('ENOENT: no such file or directory, uv_cwd');
    });
    process.env.CQIL_CACHE_DIR = 'relative';
    expect(await writeCache('kind', identity, 1)).toBe(false);
    expect(await readCache('kind', identity)).toBeUndefined();
    vi.unstubAllEnvs();
  });
});

describe('what times depend on', () => {
  const machine = { arch: 'x64', cpu: 'some', cores: 2, isa: 'avx2', build: '1-2' } as MachineInfo;
  const placement = { backend: 'cpu', threads: 2, kvCache: 'f32', activations: 'float32' } as const;
  const checkpoint = syntheticCheckpoint('smollm2-135m', 'Q4_0');
  const base = JSON.stringify(timingIdentity(machine, placement, checkpoint));

  it.each<[string, () => unknown]>([
    ['the processor', () => timingIdentity({ ...machine, cpu: 'other' }, placement, checkpoint)],
    ['the build', () => timingIdentity({ ...machine, build: '1-3' }, placement, checkpoint)],
    ['the instruction set', () => timingIdentity({ ...machine, isa: 'plain' }, placement, checkpoint)],
    ['threads', () => timingIdentity(machine, { ...placement, threads: 1 }, checkpoint)],
    ['activations', () => timingIdentity(machine, { ...placement, activations: 'int8' }, checkpoint)],
    ['the KV cache', () => timingIdentity(machine, { ...placement, kvCache: 'f16' }, checkpoint)],
    ['formats', () => timingIdentity(machine, placement, syntheticCheckpoint('smollm2-135m', 'Q8_0'))],
    ['the shape', () => timingIdentity(machine, placement, syntheticCheckpoint('llama-160m', 'Q4_0'))],
  ])('%s', (_, other) => {
    expect(JSON.stringify(other())).not.toBe(base);
  });

  it('but not the order of tensors', () => {
    expect(
      JSON.stringify(timingIdentity(machine, placement, { ...checkpoint, tensors: checkpoint.tensors.toReversed() })),
    ).toBe(base);
  });
});

describe('choices of an execution', () => {
  const identity = { model: 'a' };
  const [lanes, wide] = [
    { execution: 'lanes', threads: 2 },
    { execution: 'wide', threads: 1 },
  ] as const;
  const [pairs, threes] = [resolvePlan('P2-S0-E6', 6), resolvePlan('P3-D1-S0-E6', 6)];

  it('are kept for the next process, with those of others', async () => {
    const [first, second] = [await ExecutionChoices.open(identity), await ExecutionChoices.open(identity)];
    first.add(pairs, lanes);
    first.add(pairs, lanes);
    await first.flush();
    second.add(threes, wide);
    await second.flush();
    const third = await ExecutionChoices.open(identity);
    expect([third.get(pairs), third.get(threes), third.get(resolvePlan('sequential', 6))]).toEqual([
      lanes,
      wide,
      undefined,
    ]);
    // The bypass changes the numbers and not the stages.
    expect(third.get({ ...threes, bypass: 0 })).toEqual(wide);
  });

  it('that nobody knows are left out', async () => {
    await writeCache('execution', identity, {
      '0-1 2-3 4-5': { execution: 'sideways', threads: 2 },
      '0-2 3-5': lanes,
      sequential: { execution: 'wide', threads: 2 ** 32 },
    });
    const choices = await ExecutionChoices.open(identity);
    expect([choices.get(pairs), choices.get(threes), choices.get(resolvePlan('sequential', 6))]).toEqual([
      undefined,
      lanes,
      undefined,
    ]);
  });
});

describe('with the engine', () => {
  const shape = { dim: 32, hiddenDim: 64, nHeads: 4, nKvHeads: 2, nLayers: 6, vocabSize: 64, contextLength: 64 };
  const open = (): Promise<Model> =>
    loadModel(writeRandomModel(path.join(folder, 'model.gguf'), { format: 'gguf', shape }), {
      threads: 2,
      backend: 'cpu',
    });

  async function decode(model: Model, plan: string, tokens: number): Promise<void> {
    const session = model.createSession({ plan });
    for (let i = 0; i < tokens; i++) await session.decode(i);
    session.close();
  }

  it('a model loads for a user without a home', async () => {
    delete process.env.CQIL_CACHE_DIR;
    vi.stubEnv('XDG_CACHE_HOME', undefined);
    const homedir = vi.spyOn(os, 'homedir').mockImplementation(() => {
      throw new Error('uv_os_homedir returned ENOENT');
    });
    await using model = await open();
    expect(homedir).toHaveBeenCalled();
    await decode(model, 'P2-S0-E6', 2);
    vi.unstubAllEnvs();
  });

  it('a second process knows what auto has settled on', async () => {
    const first = await open();
    await decode(first, 'P2-S0-E6', 5);
    expect(first.settledExecution('P2-S0-E6')).toBeUndefined();
    for (let i = 0; i < 20; i++) await decode(first, 'P2-S0-E6', 50);
    const settled = first.settledExecution('P2-S0-E6')!;
    expect([
      { execution: 'wide', threads: 2 },
      { execution: 'lanes', threads: 2 },
      { execution: 'lanes', threads: 1 },
    ]).toContainEqual(settled);
    expect(first.settledExecution('sequential')).toBeUndefined();
    await first.dispose();

    await using second = await open();
    expect(second.settledExecution('P2-S0-E6')).toEqual(settled);
    const session = second.createSession({ plan: 'P2-S0-E6' });
    expect(await session.timeline(1)).toMatchObject(settled);
    for (const execution of ['wide', 'lanes'] as const) {
      const forced = second.createSession({ plan: 'P2-S0-E6', execution });
      expect(await forced.timeline(1)).toMatchObject({ execution, threads: 2 });
    }
  });

  it('a calibration is kept, and made anew when it is asked for, damaged, or of another placement', async () => {
    const checkpoint = syntheticCheckpoint('smollm2-135m', 'Q4_0');
    const placement = { backend: 'cpu', threads: 2, kvCache: 'f16', activations: 'int8' } as const; // what goes with Q4_0 weights
    expect(await findCalibration(checkpoint, placement)).toBeUndefined();
    await using model = await loadSyntheticModel('smollm2-135m', { dtype: 'Q4_0', threads: 2, backend: 'cpu' });
    const first = await calibration(model, checkpoint, { seconds: 0.1 });
    expect(
      first.latency.predict(model.program('P2-S0-E30'), 'auto', typicalPosition(model.config)).msPerToken,
    ).toBeGreaterThan(0);
    const kept = first.busy ? undefined : first.latency.rates;
    expect((await findCalibration(checkpoint, placement))?.latency.rates).toEqual(kept);
    expect(await findCalibration(checkpoint, { ...placement, threads: 1 })).toBeUndefined();
    await expectRejection('ABORTED', calibrateAnew(model, checkpoint, { signal: AbortSignal.abort() }));
  });

  it('prices that are none are not taken', async () => {
    const checkpoint = syntheticCheckpoint('smollm2-135m', 'Q4_0');
    const placement = { backend: 'cpu', threads: 2, kvCache: 'f32', activations: 'float32' } as const;
    const identity = timingIdentity(describeMachine(), placement, checkpoint);
    const rates = { waits: 1, crewWaits: 0, shared: 1, apart: 1, idle: 1, head: 1, kv: 1 };
    const measured = '2026-01-02T03:04:05.000Z';
    await writeCache('latency', identity, { rates, measured });
    expect(await findCalibration(checkpoint, placement)).toMatchObject({ measured, busy: false, latency: { rates } });
    for (const value of [
      { rates: { ...rates, kv: -1 }, measured },
      { rates: { ...rates, kv: null }, measured },
      { rates: { waits: 1 }, measured },
      { rates, measured: 'today' },
      { rates },
      3,
      null,
    ]) {
      await writeCache('latency', identity, value);
      expect(await findCalibration(checkpoint, placement)).toBeUndefined();
    }
  });
});
