import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { writeFileSync } from 'node:fs';
import { describe, expect, it, vi } from 'vitest';
import { loadModel } from '../lib/model/load.js';
import { resolvePlan } from '../lib/plan/plan.js';
import { cqil } from './support/cli.js';
import { expectCode } from './support/expect_code.js';
import { writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

const folder = tempFolder();

describe('bypass modes', () => {
  it('are the published ones for a published name, and paper for letters, unless they are spelled out', () => {
    const mode = (spec: string) => resolvePlan(spec, 32).bypassMode;
    expect(mode('LLaMA-7B-S12-E30-P2-D1')).toBe('official');
    expect(mode('LLaMA-7B-S12-E30-P2-D0')).toBe('paper');
    expect(mode('P2-D1-S12-E30')).toBe('paper');
    expect(mode('P2-D1-S12-E30-Official')).toBe('official');
    expect(mode('LLaMA-7B-S12-E30-P2-D1-paper')).toBe('paper');
    expect(mode('P2-D0-S12-E30-official')).toBe('paper');
    for (const spec of ['official', 'P2-official', 'LLaMA-7B-official', 'P2-D1-S12-E30-other'])
      expectCode('INVALID_PLAN', () => resolvePlan(spec, 32));
  });

  it('are the same for a name and for the config.json in a folder of that name', () => {
    const official = resolvePlan({ num_hidden_layers: 32, cqil_layers: resolvePlan('P2-S12-E30', 32).groups, d: 1 });
    expect(resolvePlan('LLaMA-7B-S12-E30-P2-D1', 32)).toEqual(official);
  });

  it('can be chosen on the command line, and are said', async () => {
    const check = (...args: string[]) => cqil(['plan', 'check', ...args, '--layers', '32']);
    expect(await check('LLaMA-7B-S12-E30-P2-D1')).toEqual({
      code: 0,
      stdout: 'P2-D1-S12-E30-official fits a model of 32 layers: 23 stages instead of 32\n',
      stderr:
        'LLaMA-7B-S12-E30-P2-D1 names a published model: the plan is P2-D1-S12-E30-official; --bypass-mode paper ' +
        "makes it the paper's\n",
    });
    expect(await check('LLaMA-7B-S12-E30-P2-D1', '--bypass-mode', 'paper')).toMatchObject({
      stdout: expect.stringContaining('P2-D1-S12-E30 fits'),
      stderr: '',
    });
    expect(await check('P2-D1-S12-E30', '--bypass-mode', 'official')).toMatchObject({
      stdout: expect.stringContaining('P2-D1-S12-E30-official fits'),
      stderr: '',
    });
    expect(await check('P2-D1-S12-E30', '--bypass-mode', 'other')).toMatchObject({ code: 2 });
    const made = await cqil([
      'plan',
      'make',
      '--p',
      '2',
      '--d',
      '1',
      '--s',
      '12',
      '--e',
      '30',
      '--bypass-mode',
      'official',
      '--layers',
      '32',
    ]);
    expect(JSON.parse(made.stdout)).toEqual(resolvePlan('LLaMA-7B-S12-E30-P2-D1', 32));
    expect((await cqil(['plan', 'explain', 'P2-D1-S12-E30', '--layers', '32'])).stdout).toContain('mode paper');
  });
});

describe('plans on a model', () => {
  const model = writeRandomModel(path.join(folder, 'model.gguf'), {
    format: 'gguf',
    vocabulary: true,
    shape: { nLayers: 4, vocabSize: 300 },
  });
  const plan = path.join(folder, 'plan.json');
  writeFileSync(plan, JSON.stringify({ groups: [[1, 2]], bypass: 1 }));

  it('every verb that takes plans takes their mode', async () => {
    const text = path.join(folder, 'text.txt');
    writeFileSync(text, 'a b c d e f g h '.repeat(20));
    const json = async (...args: string[]): Promise<any> => {
      const { code, stdout, stderr } = await cqil([
        ...args,
        '--plan',
        'P2-D1-S1-E3',
        '--bypass-mode',
        'official',
        '--json',
      ]);
      expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' });
      return JSON.parse(stdout);
    };
    const official = 'P2-D1-S1-E3-official';
    expect(await json('generate', model, '-p', 'a', '-n', '2')).toMatchObject({ plan: official });
    expect(await json('inspect', model)).toMatchObject({ plan: official, program: { bypassMode: 'official' } });
    expect(await json('perplexity', model, '--file', text)).toMatchObject({ plan: official });
    expect(await json('eval', model, '--file', text)).toMatchObject({
      text: { rows: [{ plan: 'sequential' }, { plan: official }] },
    });
    expect(await json('bench', model, '--tokens', '2', '--prompt-tokens', '2', '--repeat', '1')).toMatchObject({
      rows: [{ plan: official }],
    });
  });

  it('models, plans and texts may be file: URLs', async () => {
    const url = (file: string) => pathToFileURL(file).href;
    const run = await cqil(['generate', url(model), '-p', 'a', '-n', '2', '--plan', url(plan), '--json']);
    expect(run).toMatchObject({ code: 0, stderr: '' });
    expect(JSON.parse(run.stdout)).toMatchObject({ plan: 'P2-D1-S1-E3' });
    expect(await cqil(['plan', 'check', url(plan), '--layers', '4'])).toMatchObject({ code: 0 });
    const questions = path.join(folder, 'questions.jsonl');
    writeFileSync(questions, '{"query": "a", "choices": ["b", "c"], "gold": 1}\n');
    expect(await cqil(['eval', url(model), '--task', url(questions)])).toMatchObject({ code: 0, stderr: '' });
    expect(await cqil(['inspect', 'https://example.org/model.gguf'])).toMatchObject({
      code: 2,
      stdout: '',
      stderr: expect.stringContaining('no file on this machine'),
    });
    const loaded = await loadModel(pathToFileURL(model), { plan: pathToFileURL(plan) });
    expect(loaded.plan).toMatchObject({ groups: [[1, 2]], bypass: 1 });
    await loaded.dispose();
  });

  it('understands line breaks in stop strings as shells pass them on', async () => {
    const generated = JSON.parse(
      (await cqil(['generate', model, '-p', 'a', '-n', '40', '--temperature', '1', '--seed', '3', '--json'])).stdout,
    ) as { text: string };
    const whole = generated.text;
    const [found] = whole.match(/[^\\]/)!;
    const spelled = JSON.parse(
      (
        await cqil([
          'generate',
          model,
          '-p',
          'a',
          '-n',
          '40',
          '--temperature',
          '1',
          '--seed',
          '3',
          '--stop',
          '\\n',
          '--stop',
          found,
          '--json',
        ])
      ).stdout,
    ) as { text: string; finishReason: string };
    expect(spelled.finishReason).toBe('stop');
    const { repeatableUnescaped } = await import('../lib/cli/options.js');
    expect(repeatableUnescaped('\\n\\t\\\\n\\d', repeatableUnescaped('a', undefined))).toEqual(['a', '\n\t\\n\\d']);
  });
});

describe('a model whose config.json holds a plan', () => {
  const config = { cqil_layers: [[0], [1, 2], [3]], d: 1 };
  const own = writeRandomModel(path.join(folder, 'published'), {
    format: 'huggingface',
    shape: { nLayers: 4 },
    config,
  });
  const note =
    `The config.json of ${own} holds the plan P2-D1-S1-E3-official, which is used only when it is asked ` + 'for: ';

  it('says so in inspect, and how to use it', async () => {
    expect((await cqil(['inspect', own])).stdout).toContain(`${note}--plan ${own}.\n`);
    expect(JSON.parse((await cqil(['inspect', own, '--json'])).stdout)).toMatchObject({
      plan: 'sequential',
      publishedPlan: { folder: own, plan: 'P2-D1-S1-E3-official' },
    });
    expect(JSON.parse((await cqil(['inspect', own, '--plan', own, '--json'])).stdout)).toMatchObject({
      plan: 'P2-D1-S1-E3-official',
    });
  });

  it('says so on loading, where no plan was asked for', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const loaded = await loadModel(own);
    expect(loaded).toMatchObject({
      plan: { groups: [] },
      publishedPlan: { folder: own, plan: { groups: [[1, 2]], bypass: 1, bypassMode: 'official' } },
    });
    await loaded.dispose();
    expect(warn.mock.calls).toEqual([[`${note}{ plan: ${JSON.stringify(own)} }.`, { code: 'CQIL_PUBLISHED_PLAN' }]]);
    warn.mockClear();
    const asked = await loadModel(path.join(own, 'model.safetensors'), { plan: own });
    expect(asked.plan).toMatchObject({ groups: [[1, 2]], bypassMode: 'official' });
    await asked.dispose();
    const generate = ['generate', own, '--token-ids', '1,2', '-n', '2'];
    expect((await cqil(generate)).stderr).toContain(`${note}--plan ${own}.\n`);
    expect((await cqil([...generate, '--plan', own])).stderr).not.toContain('holds the plan');
    expect((await cqil([...generate, '--plan', 'sequential'])).stderr).not.toContain('holds the plan');
    expect(warn.mock.calls).toEqual([]);
    warn.mockRestore();
  });

  it('is loaded all the same where that plan is none', async () => {
    const wrong = writeRandomModel(path.join(folder, 'wrong'), {
      format: 'huggingface',
      shape: { nLayers: 4 },
      config: { cqil_layers: [[1, 5]] },
    });
    expect((await cqil(['inspect', wrong])).stdout).toContain(
      'has "cqil_layers" that make no plan for it: The plan has group 1 [1,5], but the last layer of 4 is 3.',
    );
    const loaded = await loadModel(wrong, { plan: 'sequential' });
    expect(loaded.publishedPlan?.plan).toMatchObject({ code: 'INVALID_PLAN' });
    await loaded.dispose();
  });
});
