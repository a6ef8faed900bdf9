import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';

const root = path.join(__dirname, '..');

function filesBelow(folder: string, pattern: RegExp): string[] {
  return readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' })
    .map((file) => path.posix.join(folder, file.replaceAll('\\', '/')))
    .filter((file) => pattern.test(file));
}

/**
 * What a file imports from the project, as paths from the root without extension. `values` leaves out type-only
 * imports.
 */
function importsOf(file: string, which: 'all' | 'values'): string[] {
  const found: string[] = [];
  for (const [, typeOnly, statement, call] of readFileSync(path.join(root, file), 'utf8').matchAll(
    /^(?:import|export)\s+(type\s)?[^;]*?from\s+'(\.[^']+)'|\bimport\('(\.[^']+)'\)/gm,
  )) {
    const from = statement ?? call;
    if (which === 'values' && typeOnly) continue;
    found.push(path.posix.join(path.posix.dirname(file), from!.replace(/\.m?js$/, '')));
  }
  return found;
}

describe('imports in TypeScript', () => {
  const files = filesBelow('lib', /\.m?ts$/);
  const roomOf = (file: string): string => file.split('/')[1]!.replace(/\.m?ts$/, '');
  /** Rooms of lib/ and files that stand alone, each with what it may import besides itself. */
  const helpers = ['errors', 'util'];
  const data = [...helpers, 'checkpoint', 'plan'];
  const running = [...data, 'tokenizer', 'engine', 'ranks', 'session', 'generate', 'model'];
  const allowed: Record<string, string[]> = {
    errors: [],
    util: ['errors'],
    plan: helpers,
    checkpoint: helpers,
    tokenizer: [...helpers, 'checkpoint'],
    engine: data,
    ranks: [...helpers, 'engine'],
    session: [...data, 'engine'],
    generate: [...data, 'tokenizer', 'engine', 'session'],
    model: [...data, 'tokenizer', 'engine', 'ranks', 'session', 'generate'],
    analysis: running,
    cli: [...running, 'analysis'],
    index: running,
  };

  it('rooms import only what stands below them, types included', () => {
    const wrong: string[] = [];
    for (const file of files) {
      const room = roomOf(file);
      const may = [room, ...allowed[room]!];
      for (const target of importsOf(file, 'all')) {
        if (!may.includes(roomOf(target))) wrong.push(`${file} imports ${target}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  it('tokenizers take only types from checkpoints', () => {
    const tokenizer = files.filter((file) => roomOf(file) === 'tokenizer');
    expect(tokenizer.flatMap((file) => importsOf(file, 'values')).filter((it) => roomOf(it) === 'checkpoint')).toEqual(
      [],
    );
  });

  it('of what is measured, each kind stands on those before it', () => {
    const order = ['eval', 'similarity', 'latency', 'search', 'recovery', 'report'];
    const wrong: string[] = [];
    for (const file of files.filter((it) => roomOf(it) === 'analysis' && it.split('/').length > 3)) {
      for (const target of importsOf(file, 'all').filter((it) => roomOf(it) === 'analysis')) {
        const [from, to] = [file, target].map((it) => order.indexOf(it.split('/')[2]!));
        if (from! < to! || to === -1) wrong.push(`${file} imports ${target}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  it('only the machine, schedules, loading, the model and ranks load the addon', () => {
    const knowing = files.filter((file) => importsOf(file, 'values').includes('lib/engine/addon'));
    expect(knowing.sort()).toEqual([
      'lib/engine/machine.ts',
      'lib/engine/schedule.ts',
      'lib/model/load.ts',
      'lib/model/model.ts',
      'lib/ranks/follower.ts',
      'lib/ranks/leader.ts',
    ]);
  });

  it('nobody imports an entry point but its ESM face', () => {
    for (const index of ['lib/index', 'lib/analysis/index']) {
      const importing = files.filter((file) => importsOf(file, 'all').includes(index));
      expect(importing).toEqual([`${index}.mts`]);
    }
  });
});

describe('includes in C++', () => {
  const files = filesBelow('native', /\.(h|cc|cu|cuh)$/);
  const included = (file: string): string[] =>
    [...readFileSync(path.join(root, file), 'utf8').matchAll(/^#include "([^"]+)"/gm)].map(([, target]) =>
      path.posix.join(path.posix.dirname(file), target!),
    );

  it('a backend sees the backend table and plain helpers; the core sees no backend but through the table', () => {
    const allowed: Record<string, RegExp> = {
      addon: /^native\/(addon|core|backend|registry|exchange\/exchanges\.h|cpu\/(bandwidth|kernels\/kernels)\.h)/,
      core: /^native\/(core|backend\/(backend|exchange)\.h)/,
      backend: /^native\/backend/,
      registry: /^native\/(registry|backend\/backend\.h|core\/(error|shared_library)\.h|cpu\/cpu_backend\.h)/,
      exchange: /^native\/(exchange|backend\/exchange\.h|core\/wait_briefly\.h)/,
      cpu: /^native\/(cpu|backend\/backend\.h|core\/(dtype|half|held|wait_briefly)\.h)/,
      cuda: /^native\/(cuda|backend\/backend\.h|core\/(dtype|half|shared_library)\.h)/,
    };
    const wrong: string[] = [];
    for (const file of files) {
      const rule = allowed[file.split('/')[1]!];
      for (const target of included(file)) if (!rule?.test(target)) wrong.push(`${file} includes ${target}`);
    }
    expect(wrong).toEqual([]);
  });

  it('napi.h stays in addon/, immintrin.h in the kernels and in waiting, the CUDA runtime in cuda/', () => {
    const holding = (header: string) =>
      files
        .filter((file) => readFileSync(path.join(root, file), 'utf8').includes(`#include <${header}>`))
        .map((file) => path.posix.dirname(file));
    expect([...new Set(holding('napi.h'))]).toEqual(['native/addon']);
    expect([...new Set(holding('immintrin.h'))].sort()).toEqual([
      'native/core',
      'native/cpu/kernels/simd',
      'native/cpu/kernels/targets',
    ]);
    expect([...new Set(holding('cuda_runtime_api.h'))]).toEqual(['native/cuda']);
  });
});

it('the native functions of the addon are the ones lib/engine/native.ts types', () => {
  const table = [...readFileSync(path.join(root, 'native/addon/addon.cc'), 'utf8').matchAll(/^\s+\{"(\w+)",/gm)].map(
    ([, name]) => name,
  );
  const types = /export interface NativeAddon \{(.*?)\n\}/s.exec(
    readFileSync(path.join(root, 'lib/engine/native.ts'), 'utf8'),
  )![1]!;
  expect([...types.matchAll(/^  (\w+)\(/gm)].map(([, name]) => name)).toEqual(table);
  expect(table.length).toBeLessThanOrEqual(16);
});
