import { readFileSync, rmSync } from 'node:fs';
import { createRequire, isBuiltin } from 'node:module';
import path from 'node:path';
import { compileFunction, createContext, runInContext, type Context } from 'node:vm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildPackage } from './support/built_package.js';

/**
 * Requires a CommonJS file and what it requires into a context of its own, as Jest does; the addon and Node's modules
 * stay outside.
 */
function requireInto(context: Context, file: string, loaded = new Map<string, { exports: unknown }>()): unknown {
  const known = loaded.get(file);
  if (known) return known.exports;
  const module = { exports: {} };
  loaded.set(file, module);
  const outside = createRequire(file);
  const inside = (id: string): unknown =>
    isBuiltin(id) ? outside(id) : requireInto(context, outside.resolve(id), loaded);
  const body = compileFunction(
    readFileSync(file, 'utf8'),
    ['exports', 'require', 'module', '__filename', '__dirname'],
    { parsingContext: context, filename: file },
  );
  body(module.exports, inside, module, file, path.dirname(file));
  return module.exports;
}

describe('in a realm of its own, as under Jest', () => {
  let folder: string;
  let context: Context;
  beforeAll(() => {
    folder = buildPackage();
    context = createContext({
      process,
      Buffer,
      performance,
      setTimeout,
      clearTimeout,
      TextDecoder,
      TextEncoder,
      AbortController,
      AbortSignal,
    });
    context.cqil = requireInto(context, path.join(folder, 'dist/index.js'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const run = (body: string): Promise<unknown> =>
    runInContext(`(async () => { ${body} })()`, context) as Promise<unknown>;

  it('generates, from shortlists and from all logits, with every kind of option', async () => {
    const lengths = await run(`
      globalThis.model = await cqil.loadModel();
      const lengths = [];
      for (const options of [{}, { topK: 0 }, { topK: 100 }, { temperature: 0 }, { repetitionPenalty: 1.1 }, { logprobs: 3 }, { logitBias: new Map([[5, -100]]) }, { logitBias: { 5: 1 } }]) {
        const { tokens } = await model.generate('Once', { maxTokens: 4, seed: 1, ...options });
        lengths.push(tokens.length);
      }
      return lengths;`);
    expect(lengths).toEqual(Array(8).fill(4));
  });

  it('takes a Map of any realm', async () => {
    context.outerMap = new Map([[5, Infinity]]);
    expect(
      await run(`try { model.generate('Once', { logitBias: outerMap }); } catch (error) { return error.message; }`),
    ).toMatch(/^The logitBias of token 5 is Infinity/);
  });

  it('gives arrays, objects, errors and promises that it knows itself', async () => {
    const known = await run(`
      const session = model.createSession();
      const call = session.prefill([1, 2]);
      const logits = await call;
      const { ids, logits: highest } = await session.shortlist([3], 5);
      const { phases } = model.program();
      const error = await cqil.loadModel('/nowhere').catch((error) => error);
      const refused = await session.prefill([-1]).catch((error) => error);
      return [
        call instanceof Promise, model.generate('a').catch(() => 0) instanceof Promise, logits instanceof Float32Array, logits.buffer instanceof ArrayBuffer,
        ids instanceof Int32Array, highest instanceof Float32Array, phases instanceof Array, phases[0] instanceof Object, phases[0].layers instanceof Array,
        (await session.score([1, 2])) instanceof Float32Array, (await session.timeline(1)).spans instanceof Array,
        error instanceof Error, error instanceof cqil.CqilError, error.code === 'FILE_NOT_FOUND', refused instanceof cqil.CqilError,
        (await model.generate([1], { maxTokens: 2 })).tokens instanceof Array, model.tokenizer.encode('a') instanceof Array,
      ].map(String);`);
    expect([...(known as string[])]).toEqual(Array(17).fill('true'));
    await run('await model.dispose();');
  });
});
