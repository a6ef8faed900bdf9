import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { shippedModelPath } from '../lib/model/load.js';
import { resolvePlan } from '../lib/plan/plan.js';
import { cqil } from './support/cli.js';
import { tempFolder } from './support/temp_folder.js';

const folder = tempFolder();

describe('usage', () => {
  it.each([
    ['--help', 'Usage: cqil'],
    ['generate --help', '--temperature <t>'],
    ['perplexity --help', 'do not overlap'],
    ['plan --help', 'explain'],
    ['plan make --help', '--output <file>'],
    ['help plan', 'explain'],
    ['help plan make', 'Usage: cqil plan make'],
    ['help inspect similarity', 'Usage: cqil inspect similarity'],
    [
      '--version',
      (JSON.parse(readFileSync(path.join(__dirname, '../package.json'), 'utf8')) as { version: string }).version,
    ],
  ])('%s prints on stdout and succeeds', async (line, text) => {
    const { code, stdout, stderr } = await cqil(line.split(' '));
    expect(stdout).toContain(text);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  });

  it.each([
    ['genrate', 'Did you mean generate?'],
    ['generate --plann P1', 'Did you mean --plan?'],
    ['plan mak', 'Did you mean make?'],
    ['help plan mak', "unknown command 'mak'; plan has make, check"],
    ['help doctor more', 'doctor has none'],
    ['generate', 'There is no prompt'],
    ['plan check P0', 'has P 0, expected at least 1'],
    ['generate -p x --plan P2-S4-E2', 'expected S < E'],
    ['bench --plan sequential --plan P2.5', 'none of'],
    ['generate -p x --context 1', "'--context <n>' argument '1' is invalid. Expected a whole number from 2"],
    ['generate  -p x', "for argument 'model'. Expected a folder or a file"],
    ['generate a b -p x', 'too many arguments'],
    ['generate -p', 'argument missing'],
    ['generate -p x --token-ids 1', 'cannot be used with'],
    ['generate -p x -n 0', 'whole number from 1'],
    ['generate -p x -n 1e3', 'whole number from 1'],
    ['generate -p x -n 99999999999', 'whole number from 1'],
    ['generate -p x --temperature -1', 'number from 0'],
    ['generate -p x --temperature NaN', 'number from 0'],
    ['generate -p x --top-p 2', 'number from 0 to 1'],
    ['generate -p x --seed -1', 'whole number from 0'],
    ['generate -p x --threads 0', 'whole number from 1 to 256'],
    ['generate -p x --backend gpu', 'Allowed choices are auto, cpu, cuda'],
    ['generate -p x --execution fast', 'Allowed choices are auto, wide, lanes, persistent'],
    ['generate --token-ids 1,two', 'separated by commas'],
    ['generate --token-ids 1,,2', 'separated by commas'],
    ['generate --token-ids 99999999999', 'separated by commas'],
    ['perplexity', "required option '--file <path>'"],
    ['perplexity --file x --window 1', 'whole number from 2'],
    ['bench --execution fast', 'Allowed choices are auto, wide, lanes, persistent'],
    ['bench --synthetic gpt-5', 'Allowed choices are smollm2-135m'],
    ['bench --dtype F64', 'Allowed choices are F32'],
    ['bench model --synthetic llama-7b', 'not both'],
    ['plan make', 'Give either --plan'],
    ['plan make --plan P1 --p 2', 'Give either --plan'],
    ['plan make model --plan P1 --layers 4', 'not both'],
    ['plan check', "missing required argument 'plan'"],
  ])('%s is wrong usage, told in one line', async (line, text) => {
    const { code, stdout, stderr } = await cqil(line.split(' '));
    expect(stderr).toContain(text);
    expect(stderr).toMatch(/^cqil: [^\n]+\n$/);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  });

  it('no verb at all is wrong usage too', async () => {
    const { code, stdout, stderr } = await cqil([]);
    expect(stderr).toContain('Usage: cqil');
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  });
});

describe('failures', () => {
  const binary = path.join(folder, 'binary');
  writeFileSync(binary, Buffer.from([0, 159, 146, 150]));
  const missing = path.join(folder, 'missing');
  it.each([
    [['plan', 'check', missing, '--layers', '4'], 1, /\(INVALID_PLAN\)|\(FILE_NOT_FOUND\)/],
    [['plan', 'check', `${missing}.json`], 1, /does not exist.*\(FILE_NOT_FOUND\)/],
    [['plan', 'explain', 'P2-S4-E99', '--layers', '16'], 1, /has 16 layers\. \(INVALID_PLAN\)/],
    [['plan', 'explain', 'P2-S0-E2', missing], 1, /\(FILE_NOT_FOUND\)/],
    [['perplexity', '--file', missing], 1, /cannot be read.*\(FILE_NOT_FOUND\)/],
    [['perplexity', '--file', folder], 1, /regular file.*\(FILE_NOT_FOUND\)/],
    [['perplexity', '--file', binary], 2, /binary data.*\(INVALID_ARGUMENT\)/],
    [['generate', missing, '-p', 'x'], 1, /\(FILE_NOT_FOUND\)/],
    [['generate', missing, '-p', 'x', '--json'], 1, /\(FILE_NOT_FOUND\)/],
    [['inspect', binary], 1, /\((INVALID_CHECKPOINT|FILE_NOT_FOUND|UNSUPPORTED_MODEL)\)/],
    [['bench', missing, '--json'], 1, /\(FILE_NOT_FOUND\)/],
    [['bench', '--synthetic', 'llama-7b', '--prompt-tokens', '4000'], 2, /4064 positions.*2048/],
  ])('%j ends with %i', async (args, expected, reason) => {
    const { code, stdout, stderr } = await cqil(args);
    expect(stderr).toMatch(reason);
    expect(stderr).toMatch(/^cqil: [^\n]+\n$/);
    expect(code).toBe(expected);
    if (!args.includes('--json')) return expect(stdout).toBe('');
    const [, message, name] = /^cqil: (.*) \((\w+)\)\n$/.exec(stderr)!;
    expect(JSON.parse(stdout)).toEqual({ error: { code: name, message } });
  });

  it.each([
    ['wrong usage', ['generate', '-p', 'x', '--json', '-n', '0']],
    ['before the option', ['generate', '-n', '0', '--json']],
  ])('is a document too with --json: %s', async (_, args) => {
    const { code, stdout } = await cqil(args);
    expect(code).toBe(2);
    expect(JSON.parse(stdout)).toEqual({
      error: { code: 'INVALID_ARGUMENT', message: expect.stringContaining('whole number from 1') },
    });
  });

  it('a model file is no plan', async () => {
    const { code, stderr } = await cqil(['plan', 'check', shippedModelPath(), '--layers', '24']);
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringMatching(/is a model's and no plan/) });
    const large = path.join(folder, 'large.json');
    writeFileSync(large, ' '.repeat((1 << 20) + 1));
    expect((await cqil(['plan', 'check', large])).stderr).toMatch(/is no plan: it has 1048577 bytes; expected JSON/);
  });
});

describe('stdin', () => {
  it('can be interrupted while nothing comes', async () => {
    const stdin = new PassThrough();
    const abort = new AbortController();
    const run = cqil(['generate', '-p', '-'], { stdin, signal: abort.signal });
    setTimeout(() => abort.abort(), 20);
    expect(await run).toEqual({ code: 130, stdout: '', stderr: '' });
  });

  it.each([
    ['binary data', Buffer.from([0xff, 0xfe])],
    ['text with zero bytes', Buffer.from('a\0b')],
  ])('refuses %s', async (_, bytes) => {
    const run = await cqil(['generate', '-p', '-'], { stdin: Readable.from([bytes]) });
    expect(run).toEqual({
      code: 2,
      stdout: '',
      stderr: 'cqil: The text on stdin is binary data, expected UTF-8 text. (INVALID_ARGUMENT)\n',
    });
  });
});

describe('plan', () => {
  it('makes a plan from letters or shorthand', async () => {
    const letters = await cqil(['plan', 'make', '--p', '2', '--s', '4', '--e', '12', '--d', '1', '--layers', '16']);
    const shorthand = await cqil(['plan', 'make', '--plan', 'P2-D1-S4-E12', '--layers', '16', '--json']);
    expect(letters.stdout).toBe(shorthand.stdout);
    expect(JSON.parse(letters.stdout)).toEqual(resolvePlan('P2-D1-S4-E12', 16));
    expect(letters).toMatchObject({ code: 0, stderr: '' });
  });

  it('writes a file, and overwrites one only when told', async () => {
    const file = path.join(folder, 'plan.json');
    const make = ['plan', 'make', '--plan', 'P4-S2-E14', '--layers', '16', '-o', file];
    expect(await cqil(make)).toEqual({ code: 0, stdout: '', stderr: `wrote ${file}: P4-D0-S2-E14\n` });
    expect(resolvePlan(file)).toEqual(resolvePlan('P4-S2-E14', 16));
    expect(await cqil(make)).toMatchObject({ code: 2, stderr: expect.stringContaining('--force overwrites it') });
    const forced = await cqil([...make.with(3, 'P2-S2-E14'), '--force', '--json']);
    expect(forced.code).toBe(0);
    expect(JSON.parse(forced.stdout)).toEqual(resolvePlan(file));
    expect(
      await cqil(['plan', 'make', '--plan', 'P1', '--layers', '4', '-o', path.join(folder, 'none', 'plan.json')]),
    ).toMatchObject({ code: 1, stdout: '' });
    expect(existsSync(path.join(folder, 'none'))).toBe(false);
  });

  it('checks a file by itself and against a number of layers', async () => {
    const file = path.join(folder, 'check.json');
    writeFileSync(file, JSON.stringify(resolvePlan('P2-S4-E12', 16)));
    expect(await cqil(['plan', 'check', file])).toEqual({
      code: 0,
      stdout: 'P2-D0-S4-E12 fits a model of 16 layers: 12 stages instead of 16\n',
      stderr: '',
    });
    expect(await cqil(['plan', 'check', file, '--layers', '32'])).toMatchObject({
      code: 1,
      stdout: '',
      stderr: expect.stringContaining('of 16 layers, but the model has 32'),
    });
    const json = await cqil(['plan', 'check', file, '--json']);
    expect(JSON.parse(json.stdout)).toEqual(resolvePlan(file));
  });

  it('explains in words, with a diagram', async () => {
    const { code, stdout } = await cqil(['plan', 'explain', 'P2-S12-E30', '--layers', '32']);
    expect(code).toBe(0);
    expect(stdout).toContain('115 phases instead of 160');
    expect(stdout).toMatch(/^lane 1 {2,}13/m);
    const json = JSON.parse(
      (await cqil(['plan', 'explain', 'P2-S12-E30', '--layers', '32', '--json'])).stdout,
    ) as Record<string, unknown>;
    expect(json).toMatchObject({ plan: 'P2-D0-S12-E30', layers: 32, stages: 23 });
  });
});
