import { createHash } from 'node:crypto';
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { comparePlans } from '../lib/analysis/eval/compare_plans.js';
import { measurePerplexity } from '../lib/analysis/eval/perplexity.js';
import { ResumeFile, type RunIdentity } from '../lib/analysis/eval/resume_file.js';
import { textWindows, PROTOCOLS } from '../lib/analysis/eval/windows.js';
import { loadModel } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import { resolvePlan, type Plan } from '../lib/plan/plan.js';
import { decodeAll, expectSameBits, someIds } from './reference/engine.js';
import { referenceLogProbs, referenceModel, type ReferenceModel } from './reference/forward.js';
import { argmax, klDivergence } from './reference/measure.js';
import { cqil } from './support/cli.js';
import { expectRejection } from './support/expect_code.js';
import { writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

const LAYERS = 6;
const VOCABULARY = 300;
const SPECS = ['sequential', 'P2-S1-E5', 'P3-D1-S0-E6'];

const folder = tempFolder();
const file = path.join(folder, 'random.gguf');

beforeAll(() => {
  const shape = {
    dim: 24,
    hiddenDim: 40,
    nHeads: 4,
    nKvHeads: 2,
    nLayers: LAYERS,
    vocabSize: VOCABULARY,
    contextLength: 128,
  };
  writeRandomModel(file, { format: 'gguf', shape, vocabulary: true, seed: 3 });
});

describe('windows of a text', () => {
  const ids = Array.from({ length: 10 }, (_, i) => i + 10);

  it('gptq: the rest counts when it has two tokens', () => {
    expect(textWindows(ids, 4, 'gptq', 1)).toEqual([
      { ids: [10, 11, 12, 13], firstScored: 1 },
      { ids: [14, 15, 16, 17], firstScored: 1 },
      { ids: [18, 19], firstScored: 1 },
    ]);
    expect(textWindows(ids, 9, 'gptq', undefined)).toHaveLength(1);
    expect(textWindows(ids, 100, 'gptq', undefined)).toEqual([{ ids, firstScored: 1 }]);
  });

  it('llamacpp: whole windows, BOS in front where there is one, the tokens after the middle one', () => {
    expect(textWindows(ids, 5, 'llamacpp', 1)).toEqual([
      { ids: [1, 11, 12, 13, 14], firstScored: 3 },
      { ids: [1, 16, 17, 18, 19], firstScored: 3 },
    ]);
    expect(textWindows(ids, 4, 'llamacpp', undefined).map((window) => window.ids)).toEqual([
      [10, 11, 12, 13],
      [14, 15, 16, 17],
    ]);
    expect(ids[0]).toBe(10);
  });

  it.each([
    ['gptq', [5], 4, /has 1 token, expected at least 2/],
    ['gptq', [], 4, /0 tokens, expected at least 2/],
    ['llamacpp', ids, 11, /10 tokens, expected at least one whole window of 11/],
    ['llamacpp', ids, 2, /window is 2 tokens, expected at least 3/],
  ] as const)('%s refuses %j in windows of %i', (protocol, tokens, size, message) => {
    expect(() => textWindows(tokens, size, protocol, undefined)).toThrow(message);
  });
});

describe('plans on a text', () => {
  const ids = someIds(75, VOCABULARY, 4);
  let model: Model;
  let reference: ReferenceModel;

  beforeAll(async () => {
    model = await loadModel(file);
    reference = referenceModel(await openCheckpoint(file));
  });
  afterAll(() => model.dispose());

  it('the logits of many tokens at once have the bits of one at a time', async () => {
    const session = model.createSession({ plan: SPECS[1] });
    const rows = await decodeAll(session, ids);
    for (const pieces of [
      [1, 32, 31],
      [3, 9, 8],
    ]) {
      session.truncate(0);
      for (const count of pieces) {
        const from = session.position;
        const logits = await session.logits(ids.slice(from, from + count));
        expectSameBits(
          Array.from({ length: count }, (_, i) => logits.slice(i * VOCABULARY, (i + 1) * VOCABULARY)),
          rows.slice(from, from + count),
          `${count} from ${from}`,
        );
      }
    }
    await expectRejection('INVALID_ARGUMENT', session.logits(ids.slice(0, 33)), /at most 32/);
    session.close();
  });

  describe('that was stopped', () => {
    const plans = SPECS.map((spec) => resolvePlan(spec, LAYERS));
    const windows = textWindows(ids, 20, 'gptq', undefined);
    const identity: RunIdentity = { cqil: 'eval', plans: SPECS };

    it('goes on with the next window, to the same bits', async () => {
      const expected = await comparePlans(model, plans, windows);
      const name = path.join(folder, 'windows.jsonl');
      for (const stopAfter of [1, 3]) {
        const abort = new AbortController();
        const resume = await ResumeFile.open(name, identity);
        const stop = (done: number): void => void (done >= stopAfter * 20 && abort.abort());
        await expectRejection(
          'ABORTED',
          comparePlans(model, plans, windows, { resume, signal: abort.signal, onProgress: stop }),
        );
        await resume.close();
        expect(readFileSync(name, 'utf8').trim().split('\n')).toHaveLength(1 + stopAfter);
        // As if the process had been killed while it wrote.
        appendFileSync(name, '{"window":3,"scores":[{"nll":[1.');
      }
      const resume = await ResumeFile.open(name, identity);
      expect(await comparePlans(model, plans, windows, { resume })).toEqual(expected);
      await resume.close();
      expect(readFileSync(name, 'utf8').trim().split('\n')).toHaveLength(1 + windows.length);

      // With everything in the file, nothing is computed.
      const whole = await ResumeFile.open(name, identity);
      const closed = {
        config: model.config,
        prepare: async (plan: Plan) => plan,
        createSession: () => ({ close: () => undefined }),
      } as unknown as Model;
      expect(await comparePlans(closed, plans, windows, { resume: whole })).toEqual(expected);
      await whole.close();
    });

    it.each([
      ['too few numbers', [[1], [1], [1]], /has 1 scores for window 0; expected one for each of 19 tokens/],
      ['numbers that are none', [[1], [null], [1]], /^Line 2 of the resume file .* is damaged/],
      ['no numbers', [[], [], []], /^Line 2 of the resume file .* is damaged/],
      [
        'one plan only',
        [[1]],
        /^Line 2 of the resume file .* is damaged; expected a finished question or window with the scores of 3 plans/,
      ],
    ])('refuses %s', async (what, lists, message) => {
      const name = path.join(folder, `${what.replaceAll(' ', '-')}.jsonl`);
      writeFileSync(
        name,
        `${JSON.stringify(identity)}\n${JSON.stringify({ window: 0, scores: lists.map((list) => ({ nll: list, kl: list, sameTop: 0 })) })}\n`,
      );
      const run = async (): Promise<unknown> => {
        const resume = await ResumeFile.open(name, identity);
        try {
          return await comparePlans(model, plans, windows, { resume });
        } finally {
          await resume.close();
        }
      };
      await expectRejection('INVALID_ARGUMENT', run(), message);
    });

    it('does not keep what JSON cannot hold', async () => {
      const name = path.join(folder, 'infinite.jsonl');
      const resume = await ResumeFile.open(name, identity);
      await resume.addWindow({ window: 0, scores: [{ nll: [Infinity], kl: [0], sameTop: 1 }] });
      await resume.close();
      expect(readFileSync(name, 'utf8').trim().split('\n')).toHaveLength(1);
    });
  });

  it.each(PROTOCOLS)("%s: perplexity, KL and agreement are the float64 reference's", async (protocol) => {
    const plans = SPECS.map((spec) => resolvePlan(spec, LAYERS));
    const windows = textWindows(ids, 36, protocol, 1);
    const found = await comparePlans(model, plans, windows);
    const expected = plans.map(() => ({ nll: [] as number[], kl: [] as number[], same: [] as number[] }));
    for (const window of windows) {
      const rows = plans.map((plan) => referenceLogProbs(reference, window.ids, plan));
      for (let i = window.firstScored - 1; i + 1 < window.ids.length; i++) {
        for (const [p, own] of expected.entries()) {
          own.nll.push(-rows[p]![i]![window.ids[i + 1]!]!);
          own.kl.push(klDivergence(rows[0]![i]!, rows[p]![i]!));
          own.same.push(Number(argmax(rows[0]![i]!) === argmax(rows[p]![i]!)));
        }
      }
    }
    expect(found[0]).toMatchObject({ kl: { mean: 0, p99: 0, standardError: 0 }, topAgreement: 1 });
    for (const [p, { nll, kl, same }] of expected.entries()) {
      const tokens = protocol === 'gptq' ? 72 : 34;
      const error = Math.sqrt(nll.reduce((sum, value) => sum + (value - mean(nll)) ** 2, 0) / (tokens - 1) / tokens);
      expect(found[p]!.tokens).toBe(tokens);
      expect(Math.abs(found[p]!.nll - mean(nll))).toBeLessThan(1e-4);
      expect(found[p]!.perplexity).toBe(Math.exp(found[p]!.nll));
      expect(Math.abs(found[p]!.nllStandardError - error)).toBeLessThan(1e-4);
      expect(Math.abs(found[p]!.kl.mean - mean(kl))).toBeLessThan(1e-4);
      expect(found[p]!.kl.p99).toBeGreaterThanOrEqual(kl.toSorted((a, b) => a - b)[tokens - 2]! - 1e-4);
      expect(found[p]!.kl.p99).toBeLessThanOrEqual(Math.max(...kl) + 1e-4);
      expect(found[p]!.topAgreement).toBeCloseTo(mean(same), 10);
    }
    // The plans differ by far more than the tolerance.
    expect(found[1]!.kl.mean).toBeGreaterThan(0.01);
    expect(found[2]!.kl.mean).not.toBeCloseTo(found[1]!.kl.mean, 3);
  });

  it('gptq agrees with cqil perplexity', async () => {
    const plan = resolvePlan(SPECS[2]!, LAYERS);
    const [, found] = await comparePlans(
      model,
      [resolvePlan('sequential', LAYERS), plan],
      textWindows(ids, 36, 'gptq', undefined),
    );
    const scored = await measurePerplexity(model, plan, ids, 36);
    expect(found!.tokens).toBe(scored.tokens);
    expect(found!.nll).toBeCloseTo(scored.nll, 5);
  });

  it('stops when it is told to', async () => {
    const abort = new AbortController();
    const run = comparePlans(model, [resolvePlan('sequential', LAYERS)], textWindows(ids, 8, 'gptq', undefined), {
      signal: abort.signal,
      onProgress: () => abort.abort(),
    });
    await expectRejection('ABORTED', run);
  });

  describe('cqil eval --file', () => {
    const write = (name: string, content: string | Buffer): string => {
      writeFileSync(path.join(folder, name), content);
      return path.join(folder, name);
    };
    const text = write('text.txt', 'abc bca cab abc '.repeat(5));

    it('says what is lossy, which data and which machine, and the same each time', async () => {
      const args = [
        'eval',
        file,
        '--file',
        text,
        '--window',
        '32',
        '--plan',
        'P2-S1-E5',
        '--plan',
        'sequential',
        '--plan',
        'p2-e5-s1',
      ];
      const run = await cqil([...args, '--json']);
      expect(run).toMatchObject({ code: 0, stderr: '' });
      const json = JSON.parse(run.stdout) as { text: { rows: object[] } };
      expect(json).toMatchObject({
        model: { path: file, fingerprint: expect.stringMatching(/^[0-9a-f]{12}$/) },
        text: {
          file: text,
          sha256: createHash('sha256').update(readFileSync(text)).digest('hex').slice(0, 12),
          protocol: 'gptq',
          window: 32,
        },
        tasks: [],
        machine: { backend: 'cpu', node: process.versions.node },
      });
      expect(json.text.rows).toMatchObject([
        { plan: 'sequential', lossy: false },
        { plan: 'P2-D0-S1-E5', lossy: true },
      ]);
      expect((await cqil([...args, '--json'])).stdout).toBe(run.stdout);
      const { stdout } = await cqil(args);
      expect(stdout).toMatch(/^sequential +lossless .*100\.0 %$/m);
      expect(stdout).toMatch(/^P2-D0-S1-E5 +lossy .* ± /m);
      expect(stdout).toContain(`Text ${text} (`);
    });

    it('goes on from a file of another run of the same, which one line damaged or cut off does not spoil', async () => {
      const args = ['eval', file, '--file', text, '--window', '16', '--plan', 'P2-S1-E5', '--json'];
      const whole = await cqil(args);
      const resume = path.join(folder, 'cli-windows.jsonl');
      expect((await cqil([...args, '--resume', resume])).stdout).toBe(whole.stdout);
      const lines = readFileSync(resume, 'utf8').split('\n');
      writeFileSync(resume, `${lines.slice(0, 3).join('\n')}\n${lines[3]!.slice(0, 20)}`);
      expect((await cqil([...args, '--resume', resume])).stdout).toBe(whole.stdout);
      expect(readFileSync(resume, 'utf8')).toBe(lines.join('\n'));
      const other = await cqil([
        'eval',
        file,
        '--file',
        text,
        '--window',
        '17',
        '--plan',
        'P2-S1-E5',
        '--resume',
        resume,
      ]);
      expect(other).toMatchObject({
        code: 2,
        stdout: '',
        stderr: expect.stringMatching(/is of a run with text \{.*"window":16\}; expected \{.*"window":17\}/),
      });
    });

    it.each([
      [[], 'Give a text with --file'],
      [['--file', write('empty.txt', '')], 'expected at least 2'],
      [['--file', write('binary', Buffer.from([65, 0, 66]))], 'is binary data'],
      [
        ['--file', write('packed', Buffer.from('425a6839314159265359aa', 'hex'))],
        'is compressed, expected it unpacked',
      ],
      [['--file', text, '--protocol', 'llamacpp', '--window', '128'], 'expected at least one whole window of 128'],
      [['--file', text, '--window', '129'], "expected at most the model's context length, 128"],
      [['--file', text, '--protocol', 'other'], 'Allowed choices are gptq, llamacpp'],
    ])('refuses %j', async (args, message) => {
      expect(await cqil(['eval', file, ...args])).toMatchObject({
        code: 2,
        stdout: '',
        stderr: expect.stringContaining(message),
      });
    });
  });
});

function mean(values: number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
