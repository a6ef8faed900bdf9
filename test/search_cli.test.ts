import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { timingIdentity } from '../lib/engine/cache_identity.js';
import { writeCache } from '../lib/util/cache_file.js';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { comparePlans } from '../lib/analysis/eval/compare_plans.js';
import { modelWindows } from '../lib/analysis/eval/perplexity.js';
import { textBeside } from '../lib/cli/text_file.js';
import { loadModel, shippedModelPath } from '../lib/model/load.js';
import { describeMachine } from '../lib/engine/machine.js';
import { countStages, resolvePlan, type Plan } from '../lib/plan/plan.js';
import { findPlans } from '../lib/analysis/search/find_plans.js';
import type { SearchPoint } from '../lib/analysis/search/front.js';
import { cqil } from './support/cli.js';
import { expectRejection } from './support/expect_code.js';
import { writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

const HELDOUT = textBeside(shippedModelPath());
const LAYERS = 24;

const folder = tempFolder();
const inFolder = (name: string): string => path.join(folder, name);

describe('plans of the model that ships', () => {
  const TOKENS = 160;
  let ids: number[];

  beforeAll(async () => {
    await using model = await loadModel();
    ids = model.tokenizer.encode(readFileSync(HELDOUT, 'utf8')).slice(0, TOKENS);
  });

  it('are never worse than uniform ones with as many phases, on text they were not chosen by', async () => {
    await using model = await loadModel();
    const goal = { kind: 'kl', limit: 0.1 } as const;
    const { points, front, sequential, evaluations } = await findPlans(model, ids, {
      goal,
      guard: 2,
      seed: 1,
      evaluations: 150,
    });
    expect(evaluations).toBe(150);
    expect(points.length).toBeGreaterThan(10);
    expect(points.map(({ phases }) => phases)).toEqual(points.map((_, i) => 5 * (LAYERS - points.length + i)));
    expect(points.some(({ kl, uniform }) => kl < uniform!.kl)).toBe(true);
    for (const { plan, kl, phases, uniform } of points) {
      expect(kl).toBeLessThanOrEqual(uniform!.kl);
      expect([phases, uniform!.phases]).toEqual([5 * countStages(plan), phases]);
      expect(plan.groups.flat()).not.toContain(0);
      expect(plan.groups.flat()).not.toContain(1);
    }
    expect(front.map(({ kl }) => kl)).toEqual(front.map(({ kl }) => kl).toSorted((a, b) => b - a));

    // The numbers are those of an evaluation of the second half.
    const { plan, ...point } = points[4]!;
    const [baseline, found] = await comparePlans(
      model,
      [resolvePlan('sequential', LAYERS), plan],
      modelWindows(model, ids.slice(TOKENS / 2), TOKENS / 2, 'gptq'),
    );
    expect(point).toMatchObject({
      tokens: TOKENS / 2 - 1,
      kl: found!.kl.mean,
      klStandardError: found!.kl.standardError,
      perplexity: found!.perplexity,
      topAgreement: found!.topAgreement,
    });
    expect(sequential).toMatchObject({ phases: 5 * LAYERS, perplexity: baseline!.perplexity });
  });

  it.each([
    [{ guard: 23 }, /has 24 layers and 23 of them are guarded; expected at least 2 others/],
    [{ window: 513 }, /window is 513 tokens, expected at most the model's context length, 512/],
  ])('%j is refused', async (changes, message) => {
    await using model = await loadModel();
    await expectRejection(
      'INVALID_ARGUMENT',
      findPlans(model, ids, { goal: { kind: 'kl', limit: 1 }, guard: 2, seed: 1, evaluations: 1, ...changes }),
      message,
    );
    await expectRejection(
      'INVALID_ARGUMENT',
      findPlans(model, ids.slice(0, 63), { goal: { kind: 'kl', limit: 1 }, guard: 2, seed: 1, evaluations: 1 }),
      /has 63 tokens, expected at least 64/,
    );
    await expectRejection(
      'INVALID_ARGUMENT',
      findPlans(model, ids, { goal: { kind: 'time', limit: 0.1 }, guard: 2, seed: 1, evaluations: 1 }),
      /A goal in time needs msPerToken/,
    );
    const signal = AbortSignal.abort();
    await expectRejection(
      'ABORTED',
      findPlans(model, ids, { goal: { kind: 'kl', limit: 1 }, guard: 2, seed: 1, evaluations: 1, signal }),
    );
  });
});

describe('cqil plan search', () => {
  const model = inFolder('random.gguf');
  const text = inFolder('text.txt');
  const ARGS = ['plan', 'search', model, '--file', text, '--evaluations', '20'];

  beforeAll(() => {
    writeRandomModel(model, {
      format: 'gguf',
      shape: { dim: 24, hiddenDim: 40, nHeads: 4, nKvHeads: 2, nLayers: 7, vocabSize: 300, contextLength: 128 },
      vocabulary: true,
      seed: 3,
    });
    writeFileSync(text, 'abc bca cab abc '.repeat(6));
  });

  it('says the same each time, from measurements that were kept as well', async () => {
    const [kept, output] = [inFolder('kept.jsonl'), inFolder('plan.json')];
    const args = [...ARGS, '--fewer-phases', '25%', '--seed', '3', '--guard', '2', '--json'];
    const run = await cqil(args);
    expect(run).toMatchObject({ code: 0, stderr: '' });
    expect((await cqil([...args, '--resume', kept])).stdout).toBe(run.stdout);
    const measurements = readFileSync(kept, 'utf8');
    expect(measurements.match(/"part":"fit"/g)).toHaveLength(20);
    const last = await cqil([...args, '--resume', kept, '-o', output]);
    expect(last).toMatchObject({ code: 0, stdout: run.stdout, stderr: expect.stringContaining(`wrote ${output}`) });
    expect(readFileSync(kept, 'utf8')).toBe(measurements);

    const json = JSON.parse(run.stdout) as { plan: object; front: SearchPoint[] };
    expect(json).toMatchObject({
      goal: { kind: 'phases', limit: 0.25 },
      guard: 2,
      seed: 3,
      evaluations: 20,
      complete: false,
      sequential: { phases: 35 },
    });
    for (const { kl, uniform } of json.front) expect(kl).toBeLessThanOrEqual(uniform!.kl);
    const plan = resolvePlan(output, 7);
    expect(plan).toEqual(json.plan);
    expect(countStages(plan)).toBeLessThanOrEqual(5);
    expect(plan.evidence).toMatchObject({
      data: text,
      sha256: expect.stringMatching(/^[0-9a-f]{12}$/),
      tokens: expect.any(Number),
      kl: expect.any(Number),
      perplexity: expect.any(Number),
      sequentialPerplexity: expect.any(Number),
      phases: 5 * countStages(plan),
      seed: 3,
      method: expect.any(String),
      machine: { backend: 'cpu' },
    });
    expect(await cqil(['plan', 'check', output, model])).toMatchObject({ code: 0 });
  });

  it('finds the guard itself, by pairs that are kept with the rest', async () => {
    const kept = inFolder('guard.jsonl');
    const run = await cqil([...ARGS, '--max-kl', '10', '--json', '--resume', kept]);
    const { guard, guardPairs } = JSON.parse(run.stdout) as {
      guard: number;
      guardPairs: Array<{ first: number; kl: number }>;
    };
    expect(guardPairs.map(({ first }) => first)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(guard).toBeLessThanOrEqual(2);
    expect(readFileSync(kept, 'utf8').match(/"part":"fit"/g)!.length).toBeLessThanOrEqual(26);
    expect(await cqil([...ARGS, '--max-kl', '10', '--json', '--guard', String(guard)])).toMatchObject({
      code: 0,
      stdout: expect.not.stringContaining('guardPairs'),
    });
  });

  it('prints the front, and uniform plans beside it', async () => {
    const { code, stdout } = await cqil([...ARGS, '--max-kl', '10']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^phases +KL +fit +perplexity +same top +found by +uniform KL +uniform +plan$/m);
    expect(stdout).toMatch(/^35 +0 +0 .* sequential$/m);
    expect(stdout).toContain('phases instead of 35, the best found for a KL of at most 10 nats per token:');
    expect(stdout).toContain('20 plans measured before the budget ended');
  });

  it('counts in time, by prices that are kept, and says so', async () => {
    // A machine on which waiting is all that takes time: then lanes wait least.
    const checkpoint = await openCheckpoint(model);
    const measured = '2026-01-02T03:04:05.000Z';
    const rates = { waits: 1, crewWaits: 1, shared: 0, apart: 0, idle: 1e-6, head: 0, kv: 0 };
    const identity = timingIdentity(
      describeMachine(),
      { backend: 'cpu', threads: 2, kvCache: 'f32', activations: 'float32' },
      checkpoint,
    );
    await writeCache('latency', identity, { rates, measured });
    const args = [...ARGS, '--backend', 'cpu', '--threads', '2', '--speedup', '30%', '--json'];
    const run = await cqil(args);
    expect(run).toMatchObject({ code: 0, stderr: '' });
    expect((await cqil(args)).stdout).toBe(run.stdout);
    const { plan, sequential, points } = JSON.parse(run.stdout) as {
      plan: Plan;
      sequential: SearchPoint;
      points: SearchPoint[];
    };
    // One wait for the embedding, one for the head, five per layer.
    expect(sequential.msPerToken).toBe(37);
    expect(plan.evidence).toMatchObject({
      goal: { kind: 'time', limit: 0.3 },
      predicted: { sequentialMsPerToken: 37, position: 64, calibrated: measured, busy: false },
    });
    const { msPerToken } = (plan.evidence as { predicted: { msPerToken: number } }).predicted;
    expect(msPerToken).toBeLessThanOrEqual(0.7 * 37);
    const fast = points.filter((point) => point.msPerToken! <= 0.7 * 37);
    expect(plan.evidence).toMatchObject({ kl: Math.min(...fast.map(({ kl }) => kl)) });

    // Other goals tell the time where it is known.
    expect((await cqil([...ARGS, '--backend', 'cpu', '--threads', '2', '--max-kl', '10'])).stdout).toMatch(
      /^phases +ms +KL/m,
    );
    expect(await cqil([...ARGS, '--backend', 'cpu', '--threads', '2', '--speedup', '99%'])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(
        /at least 99 % less predicted time per token: the nearest has .* a predicted [\d.]+ ms per token instead of 37/,
      ),
    });
    const explained = await cqil(['plan', 'explain', 'P2-S1-E7', model, '--backend', 'cpu', '--threads', '2']);
    expect(explained.stdout).toContain(
      'Predicted for this machine with 2 threads, after 64 tokens: 13.0 ms per token (lanes) instead of 37.0, 65 % ' +
        'less',
    );
    expect(
      (await cqil(['plan', 'explain', 'P2-S1-E7', model, '--backend', 'cpu', '--threads', '3'])).stdout,
    ).not.toContain('Predicted');
  });

  it('on one thread, where no plan is faster, it says that none is', async () => {
    const run = await cqil([...ARGS, '--backend', 'cpu', '--threads', '1', '--speedup', '20%', '--budget', '5']);
    expect(run).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('No plan was found with at least 20 % less predicted time per token'),
    });
  });

  it('ends by itself, or with its time', async () => {
    const complete = await cqil([
      'plan',
      'search',
      model,
      '--file',
      text,
      '--fewer-phases',
      '20',
      '--evaluations',
      '100000',
      '--json',
    ]);
    expect(JSON.parse(complete.stdout)).toMatchObject({ complete: true });
    const timed = await cqil([
      'plan',
      'search',
      model,
      '--file',
      text,
      '--fewer-phases',
      '10',
      '--budget',
      '1',
      '--json',
    ]);
    expect(timed).toMatchObject({ code: 0, stderr: '' });
  });

  it('writes nothing when no plan meets the goal', async () => {
    const output = inFolder('never.json');
    for (const goal of [
      ['--max-kl', '0'],
      ['--fewer-phases', '90%'],
      ['--max-ppl-increase', '0', '--evaluations', '1', '--guard', '5'],
    ]) {
      const run = await cqil([...ARGS, ...goal, '-o', output, '--json']);
      expect(run).toMatchObject({
        code: 1,
        stdout: expect.stringContaining('"code": "GOAL_UNREACHABLE"'),
        stderr: expect.stringMatching(
          /^cqil: No plan was found with [^\n]+: the nearest has \d+ phases instead of 35 [^\n]+ \(GOAL_UNREACHABLE\)\n$/,
        ),
      });
      expect(existsSync(output)).toBe(false);
    }
  });

  it('overwrites a file only with --force', async () => {
    const output = inFolder('there.json');
    writeFileSync(output, 'mine');
    const args = [...ARGS, '--fewer-phases', '10', '-o', output];
    expect(await cqil(args)).toMatchObject({
      code: 2,
      stdout: '',
      stderr: expect.stringContaining('exists already; --force overwrites it'),
    });
    expect(readFileSync(output, 'utf8')).toBe('mine');
    expect(await cqil([...args, '--force'])).toMatchObject({ code: 0 });
    expect(resolvePlan(output, 7).groups).not.toEqual([]);
  });

  describe('refuses in one line', () => {
    const write = (name: string, content: string | Buffer): string => {
      writeFileSync(inFolder(name), content);
      return inFolder(name);
    };

    it.each([
      [[], /Give one of --max-kl, --max-ppl-increase, --speedup and --fewer-phases; found 0/],
      [['--max-kl', '1', '--speedup', '5%'], /found 2/],
      [['--fewer-phases', '1', '--speedup', '5%'], /found 2/],
      [['--speedup', '101%'], /Expected a percentage from 0 to 100/],
      [['--speedup', 'fast'], /Expected a percentage/],
      [['--max-kl', '-1'], /Expected a number from 0/],
      [['--max-kl', '1', '--guard', '6'], /has 7 layers and 6 of them are guarded/],
      [['--max-kl', '1', '--window', '129'], /context length, 128/],
      [['--max-kl', '1', '--file', write('empty.txt', '')], /has \d tokens?, expected at least 64/],
      [
        ['--max-kl', '1', '--file', write('short.txt', 'abc')],
        /tokens, expected at least 64: half choose plans, half measure them/,
      ],
      [['--max-kl', '1', '--file', write('binary', Buffer.from([65, 0, 66]))], /is binary data/],
      [['--max-kl', '1', '--resume', write('other.jsonl', 'a\n')], /holds no measurements/],
    ])('%j', async (args, message) => {
      const { code, stdout, stderr } = await cqil([...ARGS, ...args]);
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
      expect(stderr).toMatch(/^cqil: [^\n]+\n$/);
      expect(stderr).toMatch(message);
    });
  });
});
