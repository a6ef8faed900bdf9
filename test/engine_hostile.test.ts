import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { CqilError } from '../lib/errors.js';
import type { KvCache } from '../lib/engine/kv_cache.js';
import { loadNative } from '../lib/engine/addon.js';
import {
  type ForwardRequest,
  type ModelHandle,
  type ModelSpec,
  type NativeAddon,
  type NativePlan,
  type SessionHandle,
  type SessionSpec,
  nativeShape,
} from '../lib/engine/native.js';
import { someIds } from './reference/engine.js';
import { writeRandomModel } from './support/random_model.js';

/**
 * TypeScript checks everything before native code sees it; here native code is called without that, and must refuse by
 * itself.
 */
describe('native calls with input that TypeScript would have refused', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'cqil-hostile-'));
  const sequential: NativePlan = { groups: [], bypass: 0, bypassMode: 'paper' };
  const soundSession: SessionSpec = { plan: sequential, execution: 'auto', contextLength: 16, kvCache: 'f32' };
  let native: NativeAddon;
  let sound: ModelSpec;

  beforeAll(async () => {
    writeRandomModel(folder, { format: 'huggingface', seed: 17 });
    const { config, files, tensors } = await openCheckpoint(folder);
    native = loadNative();
    sound = {
      shape: nativeShape(config),
      backend: 'cpu',
      device: 0,
      threads: 1,
      activations: 'float32',
      aloneBytes: 0,
      files,
      mmap: true,
      tensors,
    };
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  function withTensor(index: number, change: object): Partial<ModelSpec> {
    return { tensors: sound.tensors.map((tensor, i) => (i === index ? { ...tensor, ...change } : tensor)) };
  }

  async function expectRefused(call: () => unknown): Promise<void> {
    const outcome = await Promise.resolve()
      .then(call)
      .then(
        () => 'accepted',
        (error: unknown) => error,
      );
    expect(outcome).toBeInstanceOf(CqilError);
    expect((outcome as CqilError).code).not.toBe('INTERNAL');
  }

  it.each<[string, () => object]>([
    ['an offset beyond the file', () => withTensor(3, { offset: 1e9 })],
    ['an offset that overflows when the length is added', () => withTensor(3, { offset: Number.MAX_SAFE_INTEGER })],
    ['a negative offset', () => withTensor(3, { offset: -4 })],
    ['an offset that is no number', () => withTensor(3, { offset: NaN })],
    ['a tensor that ends just beyond its file', () => withTensor(0, { offset: 1e6 })],
    ['one row too many', () => withTensor(3, { rows: sound.tensors[3]!.rows + 1 })],
    ['rows and columns whose product overflows', () => withTensor(3, { rows: 2 ** 31, cols: 2 ** 31 })],
    ['no columns', () => withTensor(3, { cols: 0 })],
    ['a file that is not in the list', () => withTensor(3, { file: 7 })],
    ['a negative file', () => withTensor(3, { file: -1 })],
    ['an unknown role', () => withTensor(3, { role: 'w_extra' })],
    ['an unknown dtype', () => withTensor(3, { dtype: 'F64' })],
    ['a layer the model does not have', () => withTensor(3, { layer: 99 })],
    ['a negative layer', () => withTensor(3, { layer: -2 })],
    ['a missing tensor', () => ({ tensors: sound.tensors.slice(1) })],
    ['no tensors', () => ({ tensors: [] })],
    ['a tensor that comes twice', () => ({ tensors: [...sound.tensors, sound.tensors[3]] })],
    ['a file that does not exist', () => ({ files: [path.join(folder, 'absent.safetensors')] })],
    ['a folder for a file', () => ({ files: [folder] })],
    ['no files', () => ({ files: [] })],
    ['no heads', () => ({ shape: { ...sound.shape, nHeads: 0 } })],
    ['heads that do not divide', () => ({ shape: { ...sound.shape, nKvHeads: 3 } })],
    ['a huge width', () => ({ shape: { ...sound.shape, dim: 2 ** 31 } })],
    ['too few rotary frequencies', () => ({ shape: { ...sound.shape, ropeFrequencies: new Float64Array(1) } })],
    ['no threads', () => ({ threads: 0 })],
    ['a million threads', () => ({ threads: 1e6 })],
    ...['INT8', 'f16', 1, undefined].map((bad): [string, () => object] => [
      `activations ${bad}`,
      () => ({ activations: bad }),
    ]),
    ['a backend nobody wrote', () => ({ backend: 'abacus' })],
    ['no spec at all', () => ({ shape: undefined, tensors: undefined, files: undefined })],
  ])('loadModel refuses %s', async (_, change) => {
    await expectRefused(() => native.loadModel({ ...sound, ...change() }));
  });

  it('loadModel refuses an empty file', async () => {
    const file = path.join(folder, 'empty.safetensors');
    writeFileSync(file, '');
    await expectRefused(() => native.loadModel({ ...sound, files: [file] }));
  });

  it('sessions refuse plans that do not fit, absurd contexts, and wrong requests; the model works on', async () => {
    const model = await native.loadModel(sound);
    const groups: Array<NativePlan['groups']> = [
      [[2, 2]],
      [[-1, 2]],
      [
        [0, 2],
        [1, 2],
      ],
      [[0, 1e9]],
      [
        [1, 2],
        [0, 1],
      ],
      [[0, 0]],
      [[0.5, 2]],
    ];
    for (const bad of groups)
      await expectRefused(() => native.createSession(model, { ...soundSession, plan: { ...sequential, groups: bad } }));
    for (const bad of [0, -1, 2 ** 40, NaN])
      await expectRefused(() => native.createSession(model, { ...soundSession, contextLength: bad }));
    for (const bad of ['q4_0', 'F32', 0, undefined])
      await expectRefused(() => native.createSession(model, { ...soundSession, kvCache: bad as KvCache }));

    const session = native.createSession(model, soundSession);
    const request = { ids: Int32Array.of(1, 2), position: 0, output: 'logits' } satisfies ForwardRequest;
    const wrong: object[] = [
      { ids: new Int32Array(0) },
      { ids: new Int32Array(257) },
      { ids: new Int32Array(17) },
      { ids: Int32Array.of(-1) },
      { ids: Int32Array.of(64) },
      { ids: undefined },
      { position: 3 },
      { position: -1 },
      { output: 'everything' },
      { output: 'scores', next: 64 },
      { output: 'shortlist' },
      { output: 'shortlist', count: 0 },
      { output: 'shortlist', count: 65 },
      { output: 'shortlist', count: 1.5 },
      { output: 'shortlist', count: 65, ahead: true },
      { output: 'shortlist', count: 5, ids: Int32Array.of(64), ahead: true },
    ];
    for (const bad of wrong)
      await expectRefused(() => native.forward(session, { ...request, ...bad } as ForwardRequest));
    expect(await native.forward(session, request)).toHaveLength(64);
    await expectRefused(() => native.timeline(session, { ...request, output: 'shortlist', count: 5 }));

    native.closeSession(session);
    await expectRefused(() => native.forward(session, request));
    native.disposeModel(model);
    await expectRefused(() => native.createSession(model, soundSession));
  });

  it('handles that are none, or of the other kind, are refused', async () => {
    const model = await native.loadModel(sound);
    const session = native.createSession(model, soundSession);
    for (const none of [{}, null, undefined, 1, 'model', session]) {
      await expectRefused(() => native.createSession(none as unknown as ModelHandle, soundSession));
      await expectRefused(() => native.readModel(none as unknown as ModelHandle, () => undefined));
    }
    for (const none of [{}, null, undefined, 1, 'model']) {
      await expectRefused(() => native.cancel(none as unknown as ModelHandle));
      await expectRefused(() => native.readModel(model, none as unknown as () => void));
    }
    for (const none of [{}, null, undefined, 1, model]) {
      await expectRefused(() =>
        native.forward(none as unknown as SessionHandle, { ids: Int32Array.of(1), position: 0, output: 'logits' }),
      );
    }
    native.closeSession(session);
    native.disposeModel(model);
  });

  it('random changes to a sound spec load or are refused, never worse', async () => {
    const values = [-1, 0, 1, 2, 31, 63, 4096, 2 ** 31, 2 ** 40, Number.MAX_SAFE_INTEGER, 0.5, NaN, Infinity];
    const fields = ['layer', 'rows', 'cols', 'file', 'offset'];
    const picks = someIds(900, 2 ** 16, 4);
    for (let i = 0; i < picks.length; i += 3) {
      const index = picks[i]! % sound.tensors.length;
      const change = { [fields[picks[i + 1]! % fields.length]!]: values[picks[i + 2]! % values.length] };
      const outcome = await native
        .loadModel({ ...sound, ...withTensor(index, change) })
        .catch((error: unknown) => error);
      if (outcome instanceof Error) expect(outcome).toBeInstanceOf(CqilError);
      else native.disposeModel(outcome as ModelHandle);
    }
  });
});
