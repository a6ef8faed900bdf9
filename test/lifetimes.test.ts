import { mkdtempSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadModel, shippedModelPath } from '../lib/model/load.js';
import { growthPerSample } from './lifetimes/growth.js';
import { runScript } from './lifetimes/run_script.js';
import { decodeAll, expectSameBits, someIds } from './reference/engine.js';
import { buildPackage } from './support/built_package.js';
import { writeRandomModel } from './support/random_model.js';

const CONTEXT = 4096;

describe('lifetimes', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'cqil-lifetimes-'));
  const ids = someIds(4000, 256);

  beforeAll(() => {
    // Heavy enough that a prefill of the whole context takes many times as long as anything done to it here.
    const shape = {
      dim: 128,
      hiddenDim: 352,
      headDim: 32,
      nHeads: 4,
      nKvHeads: 2,
      nLayers: 8,
      vocabSize: 256,
      contextLength: CONTEXT,
    };
    writeRandomModel(folder, { shape, format: 'huggingface', dtype: 'F32', seed: 5 });
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it('dispose while work is in flight: the call rejects with DISPOSED, dispose resolves', async () => {
    const model = await loadModel(folder, { threads: 2, contextLength: CONTEXT });
    const sessions = [model.createSession(), model.createSession()];
    const calls = sessions.map((session) => session.prefill(ids));
    const outcomes = Promise.allSettled([...calls, sessions[0]!.decode(1)]);
    await model.dispose();
    for (const outcome of await outcomes)
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'DISPOSED' } });
  });

  it('dispose again gives the same promise; everything else afterwards is DISPOSED', async () => {
    const model = await loadModel(folder, { threads: 1, contextLength: CONTEXT });
    const session = model.createSession();
    await session.prefill([1, 2, 3]);
    const disposal = model.dispose();
    expect(model.dispose()).toBe(disposal);
    await disposal;
    await model[Symbol.asyncDispose]();
    await expect(session.prefill([1])).rejects.toMatchObject({ code: 'DISPOSED' });
    await expect(session.decode(1)).rejects.toMatchObject({ code: 'DISPOSED' });
    await expect(session.score([1, 2])).rejects.toMatchObject({ code: 'DISPOSED' });
    expect(() => session.truncate(0)).toThrowError(expect.objectContaining({ code: 'DISPOSED' }));
    expect(() => model.createSession()).toThrowError(expect.objectContaining({ code: 'DISPOSED' }));
    session.close();
  });

  it('closing one session in flight leaves the others alone', async () => {
    const model = await loadModel(folder, { threads: 2, contextLength: CONTEXT });
    const [doomed, other] = [model.createSession(), model.createSession()];
    const doomedCall = doomed.prefill(ids).catch((error: unknown) => error);
    const otherCall = other.prefill(ids.slice(0, 300));
    doomed.close();
    doomed.close();
    expect(await doomedCall).toMatchObject({ code: 'DISPOSED' });
    const alone = model.createSession();
    expectSameBits([await otherCall], [await alone.prefill(ids.slice(0, 300))], 'the other session');
    await model.dispose();
  });

  it('abort stops a prefill soon and leaves a session that goes on where it stopped', async () => {
    const model = await loadModel(folder, { threads: 2, contextLength: CONTEXT });
    const session = model.createSession();
    const controller = new AbortController();
    const reason = new Error('enough');
    const call = session.prefill(ids, { signal: controller.signal }).catch((error: unknown) => error);
    setTimeout(() => controller.abort(reason), 5);
    expect(await call).toMatchObject({ code: 'ABORTED', cause: reason });
    expect(session.position).toBeLessThan(ids.length);
    await expect(session.prefill([1], { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' });

    const from = session.position;
    const fresh = model.createSession();
    if (from > 0) await fresh.prefill(ids.slice(0, from));
    const next = ids.slice(from, from + 5);
    expectSameBits(await decodeAll(session, next), await decodeAll(fresh, next), `from ${from}`);
    await model.dispose();
  });

  it('a weight file that became shorter after its header was read is refused', async () => {
    const shortened = mkdtempSync(path.join(tmpdir(), 'cqil-shortened-'));
    writeRandomModel(shortened, { shape: { nLayers: 2 }, format: 'huggingface', dtype: 'F32', seed: 5 });
    const weights = path.join(shortened, 'model.safetensors');
    // "open" is reported after the headers were checked and before the native side maps the file.
    const onProgress = ({ phase }: { phase: string }): void => {
      if (phase === 'open') truncateSync(weights, statSync(weights).size - 1000);
    };
    await expect(loadModel(shortened, { onProgress })).rejects.toMatchObject({ code: 'INVALID_CHECKPOINT' });
    rmSync(shortened, { recursive: true });
  });
});

describe('lifetimes of whole processes', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'cqil-processes-'));
  let built: string;

  beforeAll(() => {
    const shape = {
      dim: 256,
      hiddenDim: 704,
      headDim: 32,
      nHeads: 8,
      nKvHeads: 4,
      nLayers: 6,
      vocabSize: 512,
      contextLength: CONTEXT,
    };
    writeRandomModel(folder, { shape, format: 'huggingface', dtype: 'F32', seed: 6 });
    built = buildPackage();
  });
  afterAll(() => {
    rmSync(built, { recursive: true });
    rmSync(folder, { recursive: true });
  });

  it.each(['prefill', 'ahead'])(
    '15 worker threads are terminated with work in flight (%s) and the process lives on',
    async (work) => {
      const outcome = JSON.parse(
        await runScript('terminate_workers.cjs', [path.join(built, 'dist/index.js'), folder, '15', work]),
      ) as { terminated: number };
      expect(outcome.terminated).toBe(15);
    },
  );

  describe('loading and disposing again and again', () => {
    // The smallest thing that a cycle could forget, its KV cache, has 400 kB.
    const BOUND = 100_000;

    async function growthPerCycle(...more: string[]): Promise<number> {
      const { every, samples } = JSON.parse(
        await runScript('load_cycles.cjs', [path.join(built, 'dist/index.js'), folder, '240', ...more]),
      ) as { every: number; samples: number[] };
      return growthPerSample(samples) / every;
    }

    it('takes no more memory with every cycle', async () => {
      expect(await growthPerCycle()).toBeLessThan(BOUND);
    });

    it('would be seen to leak', async () => {
      expect(await growthPerCycle('leak')).toBeGreaterThan(3 * BOUND);
    });

    it('is judged by its slope: a step or a saw is no leak, a creep under steps is', () => {
      const series = (value: (i: number) => number): number =>
        growthPerSample(Array.from({ length: 60 }, (_, i) => value(i)));
      const step = (at: number, MB: number) => (i: number) => 80e6 + (i >= at ? MB * 1e6 : 0);
      for (let at = 20; at < 60; at++) expect(series(step(at, 40)), `a step at ${at}`).toBe(0);
      expect(series((i) => step(31, 19)(i) + step(52, 30)(i))).toBe(0);
      expect(series((i) => step(25, 20)(i) + step(38, 20)(i) + step(52, 20)(i))).toBe(0);
      for (const period of [2, 3, 4, 5])
        expect(
          series((i) => 80e6 + (i % period) * 4e6),
          `a saw of ${period}`,
        ).toBe(0);
      expect(series((i) => step(40, 40)(i) + 1.6e6 * i)).toBeGreaterThan(1.5e6);
    });
  });

  it('closed sessions give their memory back', async () => {
    const { before, open, closed } = JSON.parse(
      await runScript('session_memory.cjs', [path.join(built, 'dist/index.js'), shippedModelPath(), '300', '4']),
    ) as { before: number; open: number; closed: number[] };
    expect(open - before).toBeGreaterThan(40e6);
    // What stays is JavaScript's, and small: a third of it would be an allocator that keeps what it is given.
    for (const after of closed) expect(after - before).toBeLessThan((open - before) / 3);
  });

  it('a thousand open conversations cost their caches, and share everything else', async () => {
    // Activations of 32 tokens are many times as large as a conversation's cache.
    const shape = {
      dim: 256,
      hiddenDim: 2048,
      headDim: 32,
      nHeads: 8,
      nKvHeads: 1,
      nLayers: 2,
      vocabSize: 4096,
      contextLength: 512,
    };
    const model = path.join(folder, 'wide.gguf');
    writeRandomModel(model, { shape, format: 'gguf', dtype: 'F16', seed: 6 });
    const { before, open } = JSON.parse(
      await runScript('session_memory.cjs', [path.join(built, 'dist/index.js'), model, '1000', '1']),
    ) as { before: number; open: number };
    const cachePages = 1000 * 2 * shape.nLayers * shape.nKvHeads;
    expect(open - before).toBeLessThan(2 * cachePages * 4096 + 15e6);
  });

  it('a process may exit with work in flight and nothing closed', async () => {
    expect(await runScript('exit_in_flight.cjs', [path.join(built, 'dist/index.js'), folder])).toBe('');
  });
});
