import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { estimate, quantile, drawIndices } from '../lib/analysis/eval/statistics.js';
import { parseTask } from '../lib/analysis/eval/task_file.js';
import { expectCode } from './support/expect_code.js';
import { describeShared, sharedData } from './support/shared_data.js';

describe('reading a task', () => {
  it('takes three forms of lines, blank ones between them, and fields it does not know', () => {
    expect(
      parseTask(
        '{"query":"a","choices":["b","c"],"gold":1,"id":7}\r\n\r\n{"gold":0,"choices":["d","e","f"],"query":"g"}\n',
        'T',
      ),
    ).toEqual({
      name: 'T',
      form: 'choices',
      items: [
        { form: 'choices', query: 'a', choices: ['b', 'c'], gold: 1, line: 1 },
        { form: 'choices', query: 'g', choices: ['d', 'e', 'f'], gold: 0, line: 3 },
      ],
    });
    expect(parseTask('{"context_options":["a","b"],"continuation":"c","gold":0}', 'T').items).toEqual([
      { form: 'schema', contextOptions: ['a', 'b'], continuation: 'c', gold: 0, line: 1 },
    ]);
    expect(parseTask('\n{"context":"a","continuation":"b"}', 'T').items).toEqual([
      { form: 'completion', context: 'a', continuation: 'b', line: 2 },
    ]);
  });

  it("takes HellaSwag's six lines", () => {
    const { form, items } = parseTask('He\n3\nsits.\nruns.\nsings.\nsleeps.\nShe\n0\na\nb\nc\nd\n', 'T');
    expect(form).toBe('choices');
    expect(items).toEqual([
      { form: 'choices', query: 'He', choices: ['sits.', 'runs.', 'sings.', 'sleeps.'], gold: 3, line: 1 },
      { form: 'choices', query: 'She', choices: ['a', 'b', 'c', 'd'], gold: 0, line: 7 },
    ]);
  });

  const good = '{"query":"a","choices":["b","c"],"gold":1}';
  it.each([
    ['', /The task T is empty/],
    ['\n \n', /The task T is empty/],
    [`${good}\n{"query":`, /^Line 2 of the task T is no JSON/],
    [`${good}\n\n[1]`, /^Line 3 of the task T is \[1\]; expected a JSON object/],
    [
      `${good}\n{"context":"a","continuation":"b"}`,
      /^Line 2 of the task T has the form completion; expected choices, like line 1/,
    ],
    ['{"query":"a","choices":["b","c"],"gold":2}', /^Line 1 of the task T has gold 2; expected an index from 0 to 1/],
    ['{"query":"a","choices":["b","c"],"gold":-1}', /has gold -1/],
    ['{"query":"a","choices":["b","c"],"gold":"1"}', /has gold "1"/],
    ['{"query":"a","choices":["b","c"]}', /has gold nothing/],
    ['{"query":"a","choices":["b"],"gold":0}', /has choices \["b"\]; expected two strings or more/],
    ['{"query":"a","choices":["b",3],"gold":0}', /has choices/],
    ['{"query":" ","choices":["b","c"],"gold":0}', /has query " "; expected a string that is not blank/],
    ['{"context_options":["a","b"],"gold":0}', /has continuation nothing/],
    ['{"question":"a","answer":"b"}', /has the fields question, answer; expected \{"query"/],
    ['{}', /has the fields of an empty object/],
    ['He\n4\na\nb\nc\nd', /^Line 2 of the task T is "4"; expected the index 0 to 3/],
    ['He\n1\na\nb\nc', /^Line 5 of the task T is the last; expected 6 lines per item/],
    ['He\n1\na\n\nc\nd', /^Line 4 of the task T is blank; expected an ending/],
    ['just\nsome text', /^Line 2 of the task T is "some text"/],
    ['one line', /^Line 2 of the task T is ""/],
  ])('refuses %j', (text, message) => expectCode('INVALID_ARGUMENT', () => parseTask(text, 'T'), message));
});

describeShared('published tasks', () => {
  it.each([
    ['arc_easy', 'choices', 2376],
    ['arc_challenge', 'choices', 1172],
    ['piqa', 'choices', 1838],
    ['openbook_qa', 'choices', 500],
    ['copa', 'choices', 100],
    ['winogrande', 'schema', 1267],
    ['lambada_openai', 'completion', 5153],
  ])('%s: %s, %i questions', (name, form, count) => {
    const task = parseTask(readFileSync(sharedData('eval', 'llm-foundry', `${name}.jsonl`), 'utf8'), name);
    expect(task.form).toBe(form);
    expect(task.items).toHaveLength(count);
  });

  it('HellaSwag, unpacked', ({ skip }) => {
    let text: string;
    try {
      text = execFileSync('bzcat', [sharedData('eval', 'hellaswag', 'hellaswag_val_full.txt.bz2')], {
        encoding: 'utf8',
        maxBuffer: 1 << 24,
      });
    } catch {
      return skip('extra: bzcat is not installed');
    }
    const { items } = parseTask(text, 'HellaSwag');
    expect(items).toHaveLength(10042);
    expect(items[1]).toEqual({
      form: 'choices',
      query: 'Clean and jerk: A lady walks to a barbell. She bends down and grabs the pole. the lady',
      choices: [
        'swings and lands in her arms.',
        'pulls the barbell forward.',
        'pulls a rope attached to the barbell.',
        'stands and lifts the weight over her head.',
      ],
      gold: 3,
      line: 7,
    });
  });
});

describe('statistics', () => {
  it('the standard error of a share is that of its zeros and ones', () => {
    const { mean, standardError } = estimate([1, 0, 0, 1, 1]);
    expect(mean).toBeCloseTo(0.6, 12);
    expect(standardError).toBeCloseTo(Math.sqrt((0.6 * 0.4) / 4), 12);
    expect(estimate([3])).toEqual({ mean: 3, standardError: 0 });
  });

  it('quantiles lie between neighbours, and numbers sort as numbers', () => {
    expect(quantile([10, 9, 1, 100], 0.5)).toBe(9.5);
    expect(quantile([7], 0.99)).toBe(7);
    expect(
      quantile(
        Float64Array.from({ length: 101 }, (_, i) => 100 - i),
        0.99,
      ),
    ).toBe(99);
  });

  it('a sample is ascending, without repeats, and its seed decides it', () => {
    const drawn = drawIndices(1000, 50, 7);
    expect(drawn).toEqual(drawIndices(1000, 50, 7));
    expect(drawn).not.toEqual(drawIndices(1000, 50, 8));
    expect(new Set(drawn).size).toBe(50);
    expect(drawn).toEqual(drawn.toSorted((a, b) => a - b));
    expect(drawIndices(5, 9, 1)).toEqual([0, 1, 2, 3, 4]);
    // Every index has the same chance: 400 samples of 5 out of 20 draw each about 100 times, give or take √75.
    const counts = Array.from({ length: 20 }, () => 0);
    for (let seed = 0; seed < 400; seed++) for (const index of drawIndices(20, 5, seed)) counts[index]!++;
    expect(Math.min(...counts)).toBeGreaterThan(60);
    expect(Math.max(...counts)).toBeLessThan(140);
  });
});
