import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { openCheckpoint } from '../lib/checkpoint/open.js';
import { cqil } from './support/cli.js';
import { writeRandomLora } from './support/lora_writer.js';
import { randomUniform } from './support/random.js';
import { writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

describe('a plan with an adapter on the command line', () => {
  const folder = tempFolder();
  const model = path.join(folder, 'model.gguf');
  const text = path.join(folder, 'text.txt');
  const planFile = path.join(folder, 'plans', 'plan.json');

  beforeAll(async () => {
    writeRandomModel(model, {
      format: 'gguf',
      dtype: 'Q8_0',
      vocabulary: true,
      shape: { dim: 32, hiddenDim: 64, nLayers: 4, vocabSize: 300 },
    });
    writeFileSync(text, 'the cat sat on the mat and saw a dog '.repeat(20));
    writeRandomLora(path.join(folder, 'plans', 'lora'), (await openCheckpoint(model)).config, { rank: 2 });
  });

  it('is made, checked, explained and inspected', async () => {
    const made = await cqil([
      'plan',
      'make',
      model,
      '--plan',
      'P2-S1-E3',
      '--adapter',
      path.join(folder, 'plans', 'lora'),
      '-o',
      planFile,
    ]);
    expect(made).toMatchObject({ code: 0, stdout: '' });
    expect(JSON.parse(readFileSync(planFile, 'utf8'))).toMatchObject({ groups: [[1, 2]], adapter: 'lora' });
    expect((await cqil(['plan', 'check', planFile, model])).stdout).toContain('P2-D0-S1-E3 + adapter fits');
    expect((await cqil(['plan', 'explain', planFile])).stdout).toContain('The adapter');
    const { memory } = JSON.parse((await cqil(['inspect', model, '--plan', planFile, '--json'])).stdout);
    // Q8_0 of all seven projections of four layers.
    expect(memory.adapter).toBe((4 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32) * 34) / 32);
    expect((await cqil(['inspect', model, '--plan', planFile])).stdout).toMatch(/with the adapter merged in .* more/);
  });

  it('is evaluated, benchmarked and generated with, beside the sequential plan without it', async () => {
    const { rows } = JSON.parse(
      (
        await cqil([
          'eval',
          model,
          '--plan',
          planFile,
          '--plan',
          'P2-S1-E3',
          '--file',
          text,
          '--window',
          '64',
          '--json',
        ])
      ).stdout,
    ).text;
    expect(rows.map(({ lossy }: { lossy: boolean }) => lossy)).toEqual([false, true, true]);
    const [sequential, adapted, plain] = rows;
    expect(sequential.kl.mean).toBe(0);
    expect(adapted.kl.mean).toBeGreaterThan(0);
    expect(adapted.nll).not.toBe(plain.nll);
    const perplexity = JSON.parse(
      (
        await cqil([
          'perplexity',
          model,
          '--plan',
          'sequential',
          '--plan',
          planFile,
          '--file',
          text,
          '--window',
          '64',
          '--json',
        ])
      ).stdout,
    );
    expect(perplexity.rows[0].nll).toBeCloseTo(sequential.nll, 5);
    expect(perplexity.rows[1].nll).toBeCloseTo(adapted.nll, 5);
    const bench = JSON.parse(
      (
        await cqil([
          'bench',
          model,
          '--plan',
          'sequential',
          '--plan',
          planFile,
          '--prompt-tokens',
          '4',
          '--tokens',
          '4',
          '--repeat',
          '1',
          '--json',
        ])
      ).stdout,
    );
    expect(bench.rows).toHaveLength(2);
    const generated = await cqil(['generate', model, '--plan', planFile, '-p', 'a cat', '-n', '4', '--json']);
    expect(JSON.parse(generated.stdout).plan.adapter).toBe(path.join(folder, 'plans', 'lora'));
  });

  it('forgets kept answers of another adapter in the same place', async () => {
    const questions = path.join(folder, 'questions.jsonl');
    writeFileSync(questions, `${JSON.stringify({ query: 'the cat', choices: ['sat', 'ran'], gold: 0 })}\n`);
    const again = (): ReturnType<typeof cqil> =>
      cqil([
        'eval',
        model,
        '--plan',
        planFile,
        '--task',
        questions,
        '--resume',
        path.join(folder, 'kept.jsonl'),
        '--json',
      ]);
    expect((await again()).code).toBe(0);
    expect((await again()).code).toBe(0);
    renameSync(path.join(folder, 'plans', 'lora'), path.join(folder, 'plans', 'first'));
    writeRandomLora(path.join(folder, 'plans', 'lora'), (await openCheckpoint(model)).config, { rank: 2, seed: 9 });
    expect(await again()).toMatchObject({ code: 2, stderr: expect.stringMatching(/run with adapters/) });
  });

  it.each<[string, string[], RegExp]>([
    ['of another model', ['plan', 'make', '--plan', 'P2-S1-E3', '--adapter', path.join(folder, 'wide')], /another/],
    [
      'that does not exist',
      [
        'generate',
        model,
        '-p',
        'a',
        '--plan',
        JSON.stringify({ groups: [[1, 2]], adapter: path.join(folder, 'nowhere') }),
      ],
      /no adapter_config\.json/,
    ],
    [
      'on random weights',
      [
        'bench',
        '--synthetic',
        'smollm2-135m',
        '--plan',
        JSON.stringify({ groups: [[1, 2]], adapter: path.join(folder, 'plans', 'lora') }),
      ],
      /random weights/,
    ],
  ])('is refused in one sentence: %s', async (_, args, message) => {
    if (!existsSync(path.join(folder, 'wide')))
      writeRandomLora(path.join(folder, 'wide'), { ...(await openCheckpoint(model)).config, dim: 48 });
    const run = await cqil(args);
    expect(run).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(message) });
    expect(run.stderr.trim().split('\n')).toHaveLength(1);
  });

  it.each<[string, string[], number, RegExp]>([
    ['a plan without groups', ['--plan', 'sequential'], 1, /no groups/],
    ['a plan that has one', ['--plan', planFile], 1, /adapter .* already/],
    ['a text too short', ['--plan', 'P2-S1-E3', '--tokens', '100'], 2, /expected at least 320/],
    ['a window too long', ['--plan', 'P2-S1-E3', '--window', '999'], 2, /context length/],
    ['a rank of nothing', ['--plan', 'P2-S1-E3', '--rank', '0'], 2, /--rank/],
  ])('is not recovered from %s, and nothing is written', async (_, args, code, message) => {
    const target = path.join(folder, 'refused');
    mkdirSync(target, { recursive: true });
    const run = await cqil(['plan', 'recover', model, '--file', text, '-o', path.join(target, 'out.json'), ...args]);
    expect(run).toMatchObject({ code, stdout: '', stderr: expect.stringMatching(message) });
    expect(readdirSync(target)).toEqual([]);
  });

  it('is not written over what is there', async () => {
    const taken = path.join(folder, 'taken.json');
    writeFileSync(taken, 'mine');
    const recover = (output: string): ReturnType<typeof cqil> =>
      cqil(['plan', 'recover', model, '--file', text, '--plan', 'P2-S1-E3', '-o', output]);
    expect(await recover(taken)).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/taken\.json exists already; --force/),
    });
    mkdirSync(path.join(folder, 'free.adapter'));
    expect(await recover(path.join(folder, 'free.json'))).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/free\.adapter exists already/),
    });
    expect(readFileSync(taken, 'utf8')).toBe('mine');
    expect(await recover(path.join(folder, 'nowhere', 'out.json'))).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/nowhere to write to does not exist/),
    });
  });
});

describe('cqil plan recover', () => {
  const folder = tempFolder();
  const [model, text, other] = ['model.gguf', 'text.txt', 'other.txt'].map((name) => path.join(folder, name)) as [
    string,
    string,
    string,
  ];
  const output = path.join(folder, 'made', 'plan.json');
  beforeAll(() => {
    writeRandomModel(model, {
      format: 'gguf',
      vocabulary: true,
      shape: { nLayers: 6, vocabSize: 300, contextLength: 512 },
      seed: 3,
    });
    // Characters of which some are frequent; those past 0x7f are read as two bytes.
    const random = randomUniform(5);
    const character = (): string => String.fromCodePoint(0x61 + Math.floor(0x500 * random() ** 3));
    for (const file of [text, other]) writeFileSync(file, Array.from({ length: 2000 }, character).join(''));
    mkdirSync(path.dirname(output));
  });

  it('writes a plan whose adapter does on another run what was printed', async () => {
    const run = await cqil([
      'plan',
      'recover',
      model,
      '--plan',
      'P2-S2-E4',
      '--file',
      text,
      '--tokens',
      '2400',
      '--rank',
      '16',
      '--threads',
      '1',
      '-o',
      output,
    ]);
    expect(run.code, run.stderr).toBe(0);
    expect(run.stdout).toMatch(/attention input[\s\S]*MLP input[\s\S]*output[\s\S]*KL falls by \d+ %/);
    expect(readdirSync(path.dirname(output)).toSorted()).toEqual(['plan.adapter', 'plan.json']);
    const plan = JSON.parse(readFileSync(output, 'utf8'));
    expect(plan).toMatchObject({ groups: [[2, 3]], adapter: 'plan.adapter' });
    expect(plan.evidence.kl).toBeLessThan(0.95 * plan.evidence.klWithoutAdapter);
    // Moved together, the two still belong together, and help on text that was not looked at.
    const moved = path.join(folder, 'moved');
    mkdirSync(moved);
    for (const name of ['plan.json', 'plan.adapter'])
      renameSync(path.join(path.dirname(output), name), path.join(moved, name));
    const { rows } = JSON.parse(
      (
        await cqil([
          'eval',
          model,
          '--plan',
          path.join(moved, 'plan.json'),
          '--plan',
          'P2-S2-E4',
          '--file',
          other,
          '--window',
          '256',
          '--threads',
          '1',
          '--json',
        ])
      ).stdout,
    ).text;
    const [, adapted, plain] = rows;
    expect(adapted.kl.mean).toBeLessThan(0.95 * plain.kl.mean);
  });

  it('writes the same bytes again, over what is there when it may', async () => {
    const args = [
      'plan',
      'recover',
      model,
      '--plan',
      'P2-S1-E3',
      '--file',
      text,
      '--tokens',
      '900',
      '--rank',
      '4',
      '--threads',
      '1',
      '-o',
      output,
      '--force',
      '--json',
    ];
    const first = await cqil(args);
    expect(first.code, first.stderr).toBe(0);
    const weights = path.join(path.dirname(output), 'plan.adapter', 'adapter_model.safetensors');
    const bytes = readFileSync(weights);
    const second = await cqil(args);
    expect(second.stdout).toBe(first.stdout);
    expect(readFileSync(weights).equals(bytes)).toBe(true);
  });
});
