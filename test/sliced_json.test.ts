import { truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { parseInSlices, readLargeJson } from '../lib/checkpoint/sliced_json.js';
import { Pace } from '../lib/util/pace.js';
import { expectRejection } from './support/expect_code.js';
import { randomUniform } from './support/random.js';
import { tempFolder } from './support/temp_folder.js';

const folder = tempFolder();

function parse(text: string): Promise<unknown> {
  return parseInSlices(text, 'x.json', 'INVALID_TOKENIZER', new Pace());
}

/** What parsing gives, spelled; FAULT where it is refused. */
async function spelled(parsed: () => unknown): Promise<string> {
  try {
    return JSON.stringify(await parsed());
  } catch {
    return 'FAULT';
  }
}

describe('JSON in slices', () => {
  it('is what JSON.parse makes of it, sound or broken', async () => {
    const random = randomUniform(12);
    const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)]!;
    const keys = ['a', '__proto__', '1', 'é"\\\n', 'longer than thirteen units'];
    const leaves = [
      null,
      true,
      false,
      0.25,
      -1,
      0,
      1e-7,
      -5e21,
      '',
      'a"b',
      '\\',
      '\\\\"',
      '\u2028\ud83d',
      'x'.repeat(20),
      `${'ü'.repeat(14)}\\"`,
      '\t',
    ];
    const value = (depth: number): unknown => {
      const kind = depth > 0 ? random() : 1;
      const length = Math.floor(random() * 5);
      if (kind < 0.3) return Array.from({ length }, () => value(depth - 1));
      if (kind < 0.6)
        return Object.defineProperties(
          {},
          Object.fromEntries(Array.from({ length }, () => [pick(keys), { value: value(depth - 1), enumerable: true }])),
        );
      return pick(leaves);
    };
    for (let i = 0; i < 3000; i++) {
      const text = JSON.stringify(value(4), null, i % 3);
      expect(await spelled(() => parse(text))).toBe(await spelled(() => JSON.parse(text)));
      const at = Math.floor(random() * text.length);
      const broken = text.slice(0, at) + pick([...'[]{},":\\ 1a']) + text.slice(at + (i % 2));
      expect(await spelled(() => parse(broken)), broken).toBe(await spelled(() => JSON.parse(broken)));
    }
  });

  it('reads what Python writes: NaN, Infinity, a byte-order mark', async () => {
    expect(await parse('[NaN, Infinity, -Infinity]')).toEqual([Number.NaN, Infinity, -Infinity]);
    const file = path.join(folder, 'mark.json');
    writeFileSync(file, '\ufeff{"a": "é"}');
    expect(await readLargeJson(file, 'INVALID_TOKENIZER', new Pace())).toEqual({ a: 'é' });
  });

  it('makes a Map of an object of many entries', async () => {
    const object = Object.fromEntries(Array.from({ length: 6000 }, (_, i) => [`a key of some length ${i % 5000}`, i]));
    const text = `{${Array.from({ length: 6000 }, (_, i) => `"a key of some length ${i % 5000}": ${i}`).join()}}`;
    expect(await parse(text)).toEqual(new Map(Object.entries(object)));
  });

  it('is left to others every few hundred values', async () => {
    const text = JSON.stringify(Array.from({ length: 20_000 }, (_, i) => ({ [`key ${i}`]: [i] })));
    const steps = vi.spyOn(Pace.prototype, 'pause');
    await parse(text);
    expect(steps.mock.calls.length).toBeGreaterThan(60_000 / 256 - 2);
    steps.mockRestore();
  });

  it.each<[string, string, RegExp]>([
    ['endless nesting', '['.repeat(100_000), /more than 256 deep/],
    ['a string without end', '{"a": "b', /a string does not end/],
    ['nothing', '', /it is empty/],
    ['half a file', '{"a": [1', /unexpected end/],
    ['more than one value', '{} {}', /unexpected "\{" at position 3/],
  ])('refuses %s', (_name, text, message) => expectRejection('INVALID_TOKENIZER', parse(text), message));

  it('refuses more values than it was told to take', () => {
    const parsing = parseInSlices(`[${'[],'.repeat(5000)}[]]`, 'x.json', 'INVALID_TOKENIZER', new Pace(), 5000);
    return expectRejection('INVALID_TOKENIZER', parsing, /more than 5000 values/);
  });

  it('refuses a file that is too large without reading it', () => {
    const file = path.join(folder, 'large.json');
    writeFileSync(file, '[');
    truncateSync(file, 180 * 2 ** 20);
    return expectRejection(
      'INVALID_TOKENIZER',
      readLargeJson(file, 'INVALID_TOKENIZER', new Pace()),
      /188743680 bytes long/,
    );
  });

  it('refuses what is not UTF-8', () => {
    const file = path.join(folder, 'latin.json');
    writeFileSync(file, Buffer.from([0x22, 0xe9, 0x22]));
    return expectRejection('INVALID_TOKENIZER', readLargeJson(file, 'INVALID_TOKENIZER', new Pace()), /not UTF-8/);
  });

  it('is not read to its end when that is aborted', async () => {
    const file = path.join(folder, 'aborted.json');
    writeFileSync(file, `[${'[1,2,3],'.repeat(400_000)}[]]`);
    const controller = new AbortController();
    const reading = readLargeJson(file, 'INVALID_TOKENIZER', new Pace(controller.signal));
    controller.abort();
    await expectRejection('ABORTED', reading);
  });
});
