import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fingerprint } from '../lib/analysis/eval/fingerprint.js';
import { ResumeFile, type RunIdentity } from '../lib/analysis/eval/resume_file.js';
import { Pace } from '../lib/util/pace.js';
import { runTasks } from '../lib/analysis/eval/run_tasks.js';
import { scoreCompletion } from '../lib/analysis/eval/score_item.js';
import { estimate } from '../lib/analysis/eval/statistics.js';
import { parseTask } from '../lib/analysis/eval/task_file.js';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { loadModel } from '../lib/model/load.js';
import type { Model } from '../lib/model/model.js';
import { resolvePlan, type Plan } from '../lib/plan/plan.js';
import { argmax } from './reference/measure.js';
import { cqil } from './support/cli.js';
import { expectRejection } from './support/expect_code.js';
import { writeRandomModel } from './support/random_model.js';
import { describeShared, sharedData } from './support/shared_data.js';
import { tempFolder } from './support/temp_folder.js';

const CHOICES = `{"query": "ab cd \\n", "choices": ["ef", "ab gh", " i"], "gold": 1}
{"query": "j k l m n", "choices": ["o", "p q r"], "gold": 0}
{"query": "the end of it", "choices": ["a b c", "a b d", "e"], "gold": 2}
`;
const SCHEMA = `{"context_options": ["a b c so a", "a b c so b"], "continuation": "d e f.", "gold": 1}
{"context_options": ["g h", "i", "g j k"], "continuation": "l", "gold": 0}
`;
const COMPLETION = `{"context": "a b c", "continuation": "d e"}
{"context": "f g", "continuation": "${'h i '.repeat(20)}"}
`;

const folder = tempFolder();
const file = path.join(folder, 'random.gguf');
const OPTIONS = { seed: 0, delimiter: ' ' };

function write(name: string, content: string): string {
  writeFileSync(path.join(folder, name), content);
  return path.join(folder, name);
}

describe('tasks', () => {
  let model: Model;
  let plans: Plan[];
  const tasks = [CHOICES, SCHEMA, COMPLETION].map((text, i) => parseTask(text, `task ${i}`));

  beforeAll(async () => {
    const shape = { dim: 24, hiddenDim: 40, nHeads: 4, nKvHeads: 2, nLayers: 4, vocabSize: 300, contextLength: 128 };
    writeRandomModel(file, { format: 'gguf', shape, vocabulary: true, seed: 5 });
    model = await loadModel(file);
    plans = ['sequential', 'P2-S0-E4'].map((spec) => resolvePlan(spec, 4));
  });
  afterAll(() => model.dispose());

  /** Sum of the log-probabilities of what follows the context, by one score of the full sequence in a new session. */
  async function logLikelihood(plan: Plan, context: string, full: string): Promise<number> {
    const start = model.tokenizer.encode(context).length;
    const session = model.createSession({ plan });
    const scores = await session.score(model.tokenizer.encode(full));
    session.close();
    return scores.slice(start - 1).reduce((sum, score) => sum + score, 0);
  }

  it('choices: the likeliest, and the likeliest per character', async () => {
    const { plans: found } = (await runTasks(model, plans, [tasks[0]!], OPTIONS))[0]!;
    const contexts = ['ab cd', 'j k l m n', 'the end of it'];
    const answers = [
      ['ef', 'ab gh', 'i'],
      ['o', 'p q r'],
      ['a b c', 'a b d', 'e'],
    ];
    const gold = [1, 0, 2];
    for (const [p, plan] of plans.entries()) {
      const sums: number[][] = [];
      for (const [i, context] of contexts.entries())
        sums.push(await Promise.all(answers[i]!.map((answer) => logLikelihood(plan, context, `${context} ${answer}`))));
      expect(found[p]!.accuracy).toEqual(estimate(sums.map((row, i) => Number(argmax(row) === gold[i]))));
      expect(found[p]!.normalizedAccuracy).toEqual(
        estimate(sums.map((row, i) => Number(argmax(row.map((sum, k) => sum / answers[i]![k]!.length)) === gold[i]))),
      );
      expect(found[p]!.nll.mean).toBeCloseTo(-sums.reduce((total, row, i) => total + row[gold[i]!]!, 0) / 3, 10);
    }
    expect(found[0]!.agreement).toBe(1);
    expect(found[1]!.nll.mean).not.toBeCloseTo(found[0]!.nll.mean, 3);
  });

  it('schema: the context after which the continuation is the likeliest', async () => {
    const [result] = await runTasks(model, plans, [tasks[1]!], OPTIONS);
    const contexts = [
      ['a b c so a', 'a b c so b'],
      ['g h', 'i', 'g j k'],
    ];
    const endings = ['d e f.', 'l'];
    for (const [p, plan] of plans.entries()) {
      const right: number[] = [];
      for (const [i, options] of contexts.entries()) {
        const sums = await Promise.all(
          options.map((context) => logLikelihood(plan, context, `${context} ${endings[i]}`)),
        );
        right.push(Number(argmax(sums) === [1, 0][i]));
      }
      expect(result!.plans[p]!.accuracy).toEqual(estimate(right));
      expect(result!.plans[p]!.normalizedAccuracy).toEqual(result!.plans[p]!.accuracy);
    }
  });

  it('completion: its log-likelihood, and whether greedy decoding gives it', async () => {
    const [result] = await runTasks(model, plans, [tasks[2]!], OPTIONS);
    for (const [p, plan] of plans.entries()) {
      const sums = [
        await logLikelihood(plan, 'a b c', 'a b c d e'),
        await logLikelihood(plan, 'f g', `f g ${'h i '.repeat(20)}`),
      ];
      expect(result!.plans[p]!.nll.mean).toBeCloseTo(-(sums[0]! + sums[1]!) / 2, 4);
      expect(result!.plans[p]).toMatchObject({ accuracy: { mean: 0 }, normalizedAccuracy: undefined });
    }
    const session = model.createSession();
    const ids = model.tokenizer.encode('a b');
    const start = ids.length;
    let logits = await session.prefill(ids);
    for (let i = 0; i < 40; i++) {
      ids.push(argmax(logits));
      logits = await session.decode(ids.at(-1)!);
    }
    const greedy = async (tokens: number[]): Promise<unknown> =>
      (
        await scoreCompletion(
          session,
          { sequences: [{ ids: tokens, start }], lengths: [1], truncated: false },
          new Pace(),
          undefined,
        )
      ).greedy;
    expect(await greedy(ids)).toBe(true);
    for (const at of [start, start + 20, ids.length - 1])
      expect(await greedy(ids.with(at, (ids[at]! + 1) % 300))).toBe(false);
    session.close();
  });

  it('words of the delimiter are context, white space before the answer belongs to it', async () => {
    const delimiter = ' \nAnswer: ';
    const [result] = await runTasks(model, plans.slice(0, 1), [tasks[0]!], { seed: 0, delimiter });
    const pairs = [
      ['ab cd', 'ab gh'],
      ['j k l m n', 'o'],
      ['the end of it', 'e'],
    ] as const;
    const sums = await Promise.all(
      pairs.map(([context, answer]) =>
        logLikelihood(plans[0]!, `${context} \nAnswer:`, `${context}${delimiter}${answer}`),
      ),
    );
    expect(result!.plans[0]!.nll.mean).toBeCloseTo(-sums.reduce((total, sum) => total + sum, 0) / 3, 10);
  });

  it('counts what always giving the most frequent answer would achieve', async () => {
    const results = await runTasks(
      model,
      plans.slice(0, 1),
      [...tasks, parseTask(CHOICES.replace('"gold": 2', '"gold": 0'), 'T')],
      OPTIONS,
    );
    expect(results.map(({ majority }) => majority)).toEqual([1 / 3, 1 / 2, 1 / 2, 2 / 3]);
  });

  it('a context too long loses its beginning; an answer too long is left out, and counted', async () => {
    const long = parseTask(`{"query": "${'a b '.repeat(90)}", "choices": ["c d", "e"], "gold": 0}`, 'long');
    const [result] = await runTasks(model, plans, [long], OPTIONS);
    expect(result).toMatchObject({ truncated: 1, tokens: 256 });
    const tooLong = `{"query": "a", "choices": ["b", "${'c d '.repeat(90)}"], "gold": 0}\n`;
    const [all] = await runTasks(model, plans, [tasks[0]!], OPTIONS);
    expect(await runTasks(model, plans, [parseTask(CHOICES + tooLong, 'T')], OPTIONS)).toEqual([
      { ...all, tooLong: 1 },
    ]);
    await expectRejection(
      'INVALID_ARGUMENT',
      runTasks(model, plans, [parseTask(tooLong, 'T')], OPTIONS),
      /No answer of the task T fits the model's context length; expected at most 127 tokens/,
    );
  });

  describe('resuming', () => {
    const identity: RunIdentity = { cqil: 'eval', version: 1, model: 'm', plans: ['a', 'b'], seed: 0 };

    it('goes on where it was stopped, to the same numbers', async () => {
      const expected = await runTasks(model, plans, tasks, OPTIONS);
      const name = path.join(folder, 'resume.jsonl');
      for (const stopAfter of [2, 5]) {
        const abort = new AbortController();
        const resume = await ResumeFile.open(name, identity);
        const run = runTasks(model, plans, tasks, {
          ...OPTIONS,
          resume,
          signal: abort.signal,
          onProgress: (done) => done === stopAfter && abort.abort(),
        });
        await expectRejection('ABORTED', run);
        await resume.close();
        expect(readFileSync(name, 'utf8').split('\n')).toHaveLength(stopAfter + 2);
        // As if the process had been killed while it wrote.
        appendFileSync(name, '{"task":1,"item":');
      }
      const resume = await ResumeFile.open(name, identity);
      const begun: number[] = [];
      expect(
        await runTasks(model, plans, tasks, { ...OPTIONS, resume, onProgress: (done) => begun.push(done) }),
      ).toEqual(expected);
      await resume.close();
      expect(begun).toHaveLength(7);
      expect(readFileSync(name, 'utf8').trim().split('\n')).toHaveLength(8);
    });

    it('says that a line cannot be written', async () => {
      const name = path.join(folder, 'unwritable.jsonl');
      const resume = await ResumeFile.open(name, identity);
      await resume.close();
      await expectRejection(
        'FILE_NOT_FOUND',
        resume.add({ task: 0, item: 0, scores: [] }),
        /^The resume file .*unwritable\.jsonl cannot be written: /,
      );
    });

    it('begins anew where only a part of its own first line was written', async () => {
      const name = write('begun.jsonl', JSON.stringify(identity).slice(0, 20));
      await (await ResumeFile.open(name, identity)).close();
      expect(readFileSync(name, 'utf8')).toBe(`${JSON.stringify(identity)}\n`);
    });

    it.each([
      ['another run', `${JSON.stringify({ ...identity, seed: 1 })}\n`, /is of a run with seed 1; expected 0/],
      [
        'other plans',
        `${JSON.stringify({ ...identity, plans: ['a'] })}\n`,
        /is of a run with plans \["a"\]; expected \["a","b"\]/,
      ],
      ["somebody's text", 'dear diary', /is no resume file/],
      ['another command', `${JSON.stringify({ ...identity, cqil: 'plan search' })}\n`, /is no resume file/],
      ["somebody's lines", 'dear diary\n', /is no resume file/],
      [
        'a broken line',
        `${JSON.stringify(identity)}\n{"task":0}\n{"task":0,"item":0,"scores":[]}\n`,
        /^Line 2 of the resume file .* is damaged/,
      ],
    ])('refuses the file of %s, and leaves it as it was', async (_, content, message) => {
      const name = write('other.jsonl', content);
      await expectRejection('INVALID_ARGUMENT', ResumeFile.open(name, identity), message);
      expect(readFileSync(name, 'utf8')).toBe(content);
    });

    it('refuses a folder, and scores that do not fit the task', async () => {
      await expectRejection('FILE_NOT_FOUND', ResumeFile.open(folder, identity), /cannot be used/);
      const score = { logLikelihoods: [-1] };
      const name = write(
        'few.jsonl',
        `${JSON.stringify(identity)}\n${JSON.stringify({ task: 0, item: 0, scores: [score, score] })}\n`,
      );
      const resume = await ResumeFile.open(name, identity);
      await expectRejection(
        'INVALID_ARGUMENT',
        runTasks(model, plans, tasks, { ...OPTIONS, resume }),
        /has 1 scores for line 1 of the task task 0; expected one for each of 3 answers/,
      );
      await resume.close();
    });
  });

  describe('cqil eval --task', () => {
    const args = (...more: string[]): string[] => ['eval', file, '--plan', 'P2-S0-E4', ...more];
    const choices = write('choices.jsonl', CHOICES);
    const completion = write('completion.jsonl', COMPLETION);

    it('says what it measured, and the seed decides which questions', async () => {
      const run = async (seed: number): Promise<string> =>
        (await cqil(args('--task', choices, '--task', completion, '--limit', '2', '--seed', String(seed), '--json')))
          .stdout;
      const [first, again, other] = [await run(1), await run(1), await run(3)];
      expect(again).toBe(first);
      expect(other).not.toBe(first);
      expect(JSON.parse(first)).toMatchObject({
        seed: 1,
        limit: 2,
        tasks: [
          {
            file: choices,
            form: 'choices',
            items: 2,
            itemsInFile: 3,
            rows: [
              { plan: 'sequential', lossy: false, agreement: 1 },
              { plan: 'P2-D0-S0-E4', lossy: true },
            ],
          },
          { file: completion, form: 'completion', items: 2, itemsInFile: 2 },
        ],
      });
    });

    it('is interrupted and goes on, to the same document', async () => {
      const whole = await cqil(args('--task', choices, '--json'));
      const resume = path.join(folder, 'cli.jsonl');
      const abort = new AbortController();
      abort.abort();
      expect(await cqil(args('--task', choices, '--json', '--resume', resume), { signal: abort.signal })).toMatchObject(
        { code: 130, stdout: '' },
      );
      expect((await cqil(args('--task', choices, '--json', '--resume', resume))).stdout).toBe(whole.stdout);
      expect(readFileSync(resume, 'utf8').trim().split('\n')).toHaveLength(4);
      expect((await cqil(args('--task', choices, '--json', '--resume', resume))).stdout).toBe(whole.stdout);
      const other = await cqil(args('--task', choices, '--resume', resume, '--delimiter', '\\n'));
      expect(other).toMatchObject({
        code: 2,
        stdout: '',
        stderr: expect.stringMatching(/is of a run with delimiter " "; expected "\\n"/),
      });
    });

    it('names the line that is broken', async () => {
      const broken = write('broken.jsonl', `${CHOICES}{"query": "a"`);
      expect(await cqil(args('--task', broken))).toMatchObject({
        code: 2,
        stdout: '',
        stderr: expect.stringContaining(`Line 4 of the task ${broken} is no JSON`),
      });
    });
  });

  it('the fingerprint of a model follows its weights', async () => {
    const other = path.join(folder, 'other.gguf');
    const shape = { dim: 24, hiddenDim: 40, nHeads: 4, nKvHeads: 2, nLayers: 4, vocabSize: 300, contextLength: 128 };
    writeRandomModel(other, { format: 'gguf', shape, vocabulary: true, seed: 6 });
    const [own, same, different] = [
      await openCheckpoint(file),
      await openCheckpoint(file),
      await openCheckpoint(other),
    ];
    expect(await fingerprint(own)).toBe(await fingerprint(same));
    expect(await fingerprint(own)).not.toBe(await fingerprint(different));
  });
});

describe('tasks on the model that ships', () => {
  const QUESTIONS = {
    choices: [
      '{"query": "Lily went to the park to", "choices": ["play.", "the of and."], "gold": 0}',
      '{"query": "The dog was", "choices": ["upon because", "very happy."], "gold": 1}',
    ],
    schema: [
      '{"context_options": ["The boy ate the cake because the cake", "The boy ate the cake because the boy"], ' +
        '"continuation": "was hungry.", "gold": 1}',
    ],
    completion: [
      '{"context": "Once upon a", "continuation": "time"}',
      '{"context": "She was very happy and thanked her", "continuation": "mom"}',
    ],
  };

  it.each(Object.entries(QUESTIONS))('%s', async (name, lines) => {
    const run = await cqil([
      'eval',
      '--plan',
      'P2-S4-E12',
      '--task',
      write(`${name}.jsonl`, lines.join('\n')),
      '--json',
    ]);
    expect(run).toMatchObject({ code: 0, stderr: '' });
    const [task] = (
      JSON.parse(run.stdout) as {
        tasks: Array<{ form: string; items: number; rows: Array<{ accuracy: { mean: number } }> }>;
      }
    ).tasks;
    expect(task).toMatchObject({ form: name, items: lines.length });
    // What a child would answer, a model of children's stories does.
    if (name !== 'schema') expect(task!.rows[0]!.accuracy.mean).toBe(1);
  });
});

describeShared('published tasks on a real model', () => {
  it.each(['arc_easy', 'arc_challenge', 'piqa', 'winogrande', 'openbook_qa', 'copa', 'lambada_openai'])(
    '%s',
    async (name) => {
      const run = await cqil([
        'eval',
        sharedData('models', 'stories-16l'),
        '--plan',
        'P2-S4-E12',
        '--task',
        sharedData('eval', 'llm-foundry', `${name}.jsonl`),
        '--limit',
        '3',
      ]);
      expect(run).toMatchObject({ code: 0, stderr: '' });
      expect(run.stdout).toMatch(/^sequential +lossless/m);
      expect(run.stdout).toMatch(/, 3 of \d+ questions, /);
    },
  );
});
