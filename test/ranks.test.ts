import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import type { LoadOptions } from '../lib/engine/load_options.js';
import type { loadModel as load } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import { someIds } from './reference/engine.js';
import { firstDifference, maxDifference } from './reference/measure.js';
import { writeRandomModel, type RandomModelOptions } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';
import { TEXT_VOCAB, writeTextModel } from './support/text_model.js';

// A follower is a program of its own, which exists only once it is built.
const built = path.join(__dirname, '../dist');
const { loadModel } = require(path.join(built, 'index.js')) as { loadModel: typeof load };

const onLinux = process.platform === 'linux';
const CONTEXT = 256;

/** Processes that this one has started, with what they run. */
function children(): Array<{ pid: number; command: string }> {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
        const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
        const command = readFileSync(`/proc/${name}/cmdline`, 'utf8');
        return Number(parent) === process.pid && state !== 'Z' ? [{ pid: Number(name), command }] : [];
      } catch {
        return []; // it has ended meanwhile
      }
    });
}

const followers = () => children().filter(({ command }) => command.includes('follower.js'));

async function using<T>(options: LoadOptions, file: string, use: (model: Model) => Promise<T>): Promise<T> {
  const model = await loadModel(file, { threads: 2, ...options });
  try {
    return await use(model);
  } finally {
    await model.dispose();
  }
}

/** What a model says of a text in every way. */
async function outputs(model: Model, ids: number[]): Promise<Float32Array[]> {
  const session = model.createSession({ contextLength: CONTEXT });
  const found = [await session.prefill(ids.slice(0, 70))];
  for (const id of ids.slice(70, 76)) found.push(await session.decode(id));
  found.push(await session.score(ids.slice(76, 110)));
  const list = await session.shortlist([ids[110]!], 9);
  found.push(list.logits);
  session.close();
  return found;
}

describe.runIf(onLinux)('ranks', () => {
  const folder = tempFolder();
  const file = path.join(folder, 'text.gguf');
  const ids = someIds(120, TEXT_VOCAB);

  beforeAll(() => {
    expect(existsSync(path.join(built, 'ranks/follower.js'))).toBe(true);
    writeTextModel(file, CONTEXT);
  });

  it('whole lanes have the bits of one process', { timeout: 120_000 }, async () => {
    for (const plan of ['P2-S0-E6', 'P3-D1-S0-E6'])
      for (const activations of ['auto', 'float32'] as const) {
        const expected = await using({ plan, activations }, file, (model) => outputs(model, ids));
        for (const ranks of [2, 3]) {
          const found = await using({ plan, activations, ranks, split: 'lanes' }, file, (model) => outputs(model, ids));
          found.forEach((row, i) =>
            expect(firstDifference(row, expected[i]!), `${plan}, ${ranks} ranks, output ${i}`).toBe(-1),
          );
        }
      }
  });

  it('slices are within 1e-5 of one process', { timeout: 120_000 }, async () => {
    const formats: Array<Partial<RandomModelOptions>> = [{ dtype: 'F32' }, { dtype: 'BF16' }, { dtype: 'F16' }];
    for (const format of formats) {
      const place = path.join(folder, `${format.dtype}`);
      writeRandomModel(place, {
        format: 'huggingface',
        seed: 9,
        shape: { dim: 64, hiddenDim: 160, nHeads: 4, nKvHeads: 2, nLayers: 6, vocabSize: 300, contextLength: CONTEXT },
        ...format,
      });
      const options: LoadOptions = { plan: 'P2-S1-E5', activations: 'float32' };
      const expected = await using(options, place, (model) => outputs(model, ids));
      for (const split of ['hybrid', 'tensor'] as const)
        for (const shares of [
          [1, 1],
          [3, 1],
          [1, 1, 2],
        ]) {
          const placed: LoadOptions = { ...options, ranks: shares.length, shares, split };
          const found = await using(placed, place, (model) => outputs(model, ids));
          const size = Math.max(...expected.flatMap((row) => Array.from(row, Math.abs)));
          found.forEach((row, i) =>
            expect(maxDifference(row, expected[i]!), `${split} ${shares}, output ${i}`).toBeLessThan(1e-5 * size),
          );
        }
    }
  });

  it('generations run beside each other, and one that is aborted ends alone', { timeout: 60_000 }, async () => {
    const options: LoadOptions = { plan: 'P2-S0-E6', split: 'tensor' };
    const generate = (model: Model, seed: number, signal?: AbortSignal) =>
      model.generate(ids.slice(seed, seed + 9), { maxTokens: 20, temperature: 0, signal });
    const alone = await using(options, file, async (model) => (await generate(model, 0)).tokens);
    await using({ ...options, ranks: 2 }, file, async (model) => {
      const controller = new AbortController();
      const given = generate(model, 5, controller.signal);
      const others = [generate(model, 0), generate(model, 0)];
      controller.abort();
      await expect(Promise.resolve(given)).rejects.toMatchObject({ code: 'ABORTED' });
      for (const other of others) expect((await other).tokens).toEqual(alone);
      expect((await generate(model, 0)).tokens).toEqual(alone);
    });
  });

  it('a rank that is killed is lost to every later call, and the model can be disposed of', async () => {
    for (const rank of [0, 1]) {
      const model = await loadModel(file, { plan: 'P3-S0-E6', ranks: 3, split: 'lanes', threads: 1 });
      const pids = followers().map(({ pid }) => pid);
      expect(pids.length).toBe(2);
      const session = model.createSession({ contextLength: CONTEXT });
      await session.prefill(ids.slice(0, 50));
      process.kill(pids[rank]!, 'SIGKILL');
      const lost = { code: 'RANK_LOST', message: expect.stringContaining('Rank ') };
      await expect(session.decode(1)).rejects.toMatchObject(lost);
      await expect(model.createSession().decode(1)).rejects.toMatchObject(lost);
      await model.dispose();
      expect(followers()).toEqual([]);
    }
  });

  it('a rank that hangs is lost after rankTimeout', { timeout: 60_000 }, async () => {
    const model = await loadModel(file, { plan: 'P2-S0-E6', ranks: 2, threads: 1, rankTimeout: 300 });
    const pid = followers()[0]!.pid;
    process.kill(pid, 'SIGSTOP');
    await expect(model.createSession().decode(1)).rejects.toMatchObject({ code: 'RANK_LOST' });
    await model.dispose();
    expect(followers()).toEqual([]);
  });

  it('followers end with a leader that is killed', { timeout: 60_000 }, async () => {
    const script = `require(${JSON.stringify(path.join(built, 'index.js'))})
      .loadModel(${JSON.stringify(file)}, { plan: 'P2-S0-E6', ranks: 2, threads: 1 })
      .then(() => { console.log('ready'); setInterval(() => {}, 1000); });`;
    const leader = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise((resolve) => leader.stdout.once('data', resolve));
    const pids = execFileSync('pgrep', ['-P', `${leader.pid}`], { encoding: 'utf8' })
      .trim()
      .split('\n');
    expect(pids.length).toBe(1);
    leader.kill('SIGKILL');
    const begun = Date.now();
    while (existsSync(`/proc/${pids[0]}`) && Date.now() - begun < 30_000) await sleep(20);
    expect(existsSync(`/proc/${pids[0]}`)).toBe(false);
  });

  it('a program ends without having disposed of its model', { timeout: 60_000 }, () => {
    const script = `require(${JSON.stringify(path.join(built, 'index.js'))})
      .loadModel(${JSON.stringify(file)}, { plan: 'P2-S0-E6', ranks: 2, threads: 1 })
      .then((model) => model.createSession().decode(1)).then(() => console.log('done'));`;
    expect(execFileSync(process.execPath, ['-e', script], { encoding: 'utf8', timeout: 50_000 })).toBe('done\n');
  });

  it('loading and disposing again and again leaves nothing', { timeout: 120_000 }, async () => {
    const descriptors = () => readdirSync('/proc/self/fd').length;
    const shared = () => readdirSync('/proc/self/fd').filter((fd) => target(fd).includes('cqil-exchange')).length;
    const target = (fd: string) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return '';
      }
    };
    const cycle = () =>
      using({ plan: 'P2-S0-E6', ranks: 2, threads: 1 }, file, (model) => model.createSession().decode(1));
    await cycle();
    const before = descriptors();
    for (let i = 0; i < 10; i++) await cycle();
    expect(followers()).toEqual([]);
    expect(shared()).toBe(0);
    expect(descriptors()).toBeLessThanOrEqual(before + 2);
  });

  it('wrong options and plans are told', async () => {
    const refused = async (options: object, code: string, message: RegExp) => {
      await expect(loadModel(file, options as LoadOptions)).rejects.toMatchObject({
        code,
        message: expect.stringMatching(message),
      });
      expect(followers()).toEqual([]);
    };
    await refused({ ranks: 9 }, 'INVALID_ARGUMENT', /ranks is 9; expected an integer from 1 to 8/);
    await refused({ ranks: 2, shares: [1] }, 'INVALID_ARGUMENT', /shares/);
    await refused({ ranks: 2, shares: [1, 0] }, 'INVALID_ARGUMENT', /shares/);
    await refused({ ranks: 2, split: 'columns' }, 'INVALID_ARGUMENT', /lanes, hybrid or tensor/);
    await refused({ ranks: 2, backend: 'cuda' }, 'INVALID_ARGUMENT', /backend/);
    await refused({ ranks: 2, rankTimeout: 0 }, 'INVALID_ARGUMENT', /rankTimeout/);
    await using({ ranks: 2, split: 'lanes', plan: 'P2-S0-E6' }, file, async (model) => {
      expect(() => model.createSession({ plan: 'sequential' })).toThrow(/lanes of another plan/);
      await model.createSession().decode(1);
    });
  });
});
