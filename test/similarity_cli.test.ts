import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { textBeside } from '../lib/cli/text_file.js';
import { loadModel, shippedModelPath } from '../lib/model/load.js';
import { measureSimilarity } from '../lib/analysis/similarity/measure_similarity.js';
import type { Similarity } from '../lib/analysis/similarity/similarity.js';
import { cqil } from './support/cli.js';
import { describeShared, sharedData } from './support/shared_data.js';
import { tempFolder } from './support/temp_folder.js';

const HELDOUT = textBeside(shippedModelPath());

interface Document extends Similarity {
  file: string;
  layers: number;
  window: number;
}

async function document(args: string[]): Promise<Document> {
  const { code, stdout, stderr } = await cqil(['inspect', 'similarity', ...args, '--json']);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(stdout) as Document;
}

describe('cqil inspect similarity', () => {
  const folder = tempFolder();

  function write(name: string, content: string | Uint8Array): string {
    const file = path.join(folder, name);
    writeFileSync(file, content);
    return file;
  }

  it('prints one document: what the library measures on the first tokens of the text', async () => {
    const found = await document(['--file', HELDOUT, '--tokens', '300']);
    await using model = await loadModel();
    const ids = model.tokenizer.encode(readFileSync(HELDOUT, 'utf8')).slice(0, 300);
    expect(found).toEqual({ file: HELDOUT, layers: 24, window: 512, ...(await measureSimilarity(model, ids)) });
    // The first token of the window is not counted.
    expect(found.tokens).toBe(299);
    for (const values of [found.inputNorm, found.deltaRatio, found.attentionRatio, found.mlpRatio, found.influence]) {
      expect(values).toHaveLength(24);
      for (const value of values) expect(value).toBeGreaterThan(0);
    }
  });

  it('shows that the layers of the model that ships are quasi-independent after the first', async () => {
    const { inputCosine } = await document(['--file', HELDOUT]);
    const next = inputCosine.slice(0, -1).map((row, layer) => row[layer + 1]!);
    expect(next[0]).toBeLessThan(0.5);
    for (const cosine of next.slice(1)) expect(cosine).toBeGreaterThan(0.9);
  });

  it('prints a heat map and a table, of a long text its beginning, in plain text of 80 columns', async () => {
    const text = readFileSync(HELDOUT, 'utf8');
    const long = write('long.txt', text.repeat(2000));
    const { code, stdout, stderr } = await cqil(['inspect', 'similarity', '--file', long, '--tokens', '256']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout.match(/^ *\d+ [ ░▒▓█]+$/gm)).toHaveLength(24);
    expect(stdout).toMatch(/^layer +next +norm +delta +attention +mlp +influence$/m);
    expect(stdout).toContain('24 layers, 255 tokens of');
    expect(stdout).not.toContain('\u001b');
    for (const line of stdout.split('\n').slice(1)) expect([...line].length).toBeLessThanOrEqual(80);
  });

  it.each<[string, string | Uint8Array, RegExp, number]>([
    ['empty.txt', '', /has \d tokens?, expected at least 2/, 2],
    ['binary.txt', Uint8Array.of(0xff, 0xfe, 0, 1), /is binary data, expected UTF-8 text/, 2],
    ['zeros.txt', 'a\0b', /is binary data, expected UTF-8 text/, 2],
  ])('refuses %s in one line', async (name, content, message, expectedCode) => {
    for (const json of [[], ['--json']]) {
      const { code, stdout, stderr } = await cqil(['inspect', 'similarity', '--file', write(name, content), ...json]);
      expect(stderr).toMatch(/^cqil: [^\n]+\n$/);
      expect(stderr).toMatch(message);
      expect(code).toBe(expectedCode);
      if (json.length > 0) expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'INVALID_ARGUMENT' } });
      else expect(stdout).toBe('');
    }
  });

  it.each([
    ['inspect similarity', "required option '--file <path>'", 2],
    ['inspect similarity --file x --tokens 1', 'whole number from 2', 2],
    ['inspect similarity --file x --plan P2', "unknown option '--plan'", 2],
    ['inspect similarity a b --file x', 'too many arguments', 2],
    ['inspect similarity --file /nowhere/text.txt', '/nowhere/text.txt', 1],
    ['inspect similarty', 'similarty', 1],
  ])('%s fails in one line', async (line, text, expectedCode) => {
    const { code, stdout, stderr } = await cqil(line.split(' '));
    expect(stderr).toContain(text);
    expect(stderr).toMatch(/^cqil: [^\n]+\n$/);
    expect({ code, stdout }).toEqual({ code: expectedCode, stdout: '' });
  });

  it('leaves inspect as it was', async () => {
    const { code, stdout } = await cqil(['inspect', shippedModelPath(), '--plan', 'P2-S4-E12', '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ path: shippedModelPath(), plan: 'P2-D0-S4-E12' });
    expect((await cqil(['inspect', 'similarity', '--help'])).stdout).toContain(
      'Usage: cqil inspect similarity [options] [model]',
    );
  });
});

describeShared('cqil inspect similarity on a model trained elsewhere', () => {
  it('sees that the layers of a shallow model are further apart', async () => {
    const { inputCosine, influence } = await document([
      sharedData('models', 'stories260K', 'stories260Ktok512.gguf'),
      '--file',
      HELDOUT,
    ]);
    const next = inputCosine.slice(0, -1).map((row, layer) => row[layer + 1]!);
    for (const [layer, cosine] of next.entries()) {
      expect(cosine).toBeGreaterThan(0.6);
      expect(cosine).toBeLessThan(0.93);
      // Both say how far one layer turns the stream.
      expect(influence[layer]).toBeCloseTo(1 - cosine, 5);
    }
  });
});
