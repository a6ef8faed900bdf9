import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { MeasurementFile } from '../lib/analysis/search/measurement_file.js';
import { expectRejection } from './support/expect_code.js';
import { tempFolder } from './support/temp_folder.js';

const IDENTITY = { cqil: 'plan search', version: 1, model: 'abc', sha256: 'def', tokens: 100 } as const;
const QUALITY = { tokens: 50, kl: 0.1, klStandardError: 0.01, perplexity: 9, topAgreement: 0.9 };

const folder = tempFolder();
const file = (name: string): string => path.join(folder, name);

it('keeps what was measured, part by part', async () => {
  const first = await MeasurementFile.open(file('kept'), IDENTITY);
  await first.add('fit', 'P2-D0-S2-E4', QUALITY);
  await first.add('held out', 'P2-D0-S2-E4', { ...QUALITY, kl: 0.2 });
  await first.close();
  const again = await MeasurementFile.open(file('kept'), IDENTITY);
  expect(again.get('fit', 'P2-D0-S2-E4')).toEqual(QUALITY);
  expect(again.get('held out', 'P2-D0-S2-E4')?.kl).toBe(0.2);
  expect(again.get('fit', 'P2-D1-S2-E4')).toBeUndefined();
  await again.close();
});

it('says that a measurement cannot be written', async () => {
  const closed = await MeasurementFile.open(file('closed'), IDENTITY);
  await closed.close();
  await expectRejection(
    'FILE_NOT_FOUND',
    closed.add('fit', 'P2-D0-S2-E4', QUALITY),
    /^The file of measurements .*closed cannot be written: /,
  );
});

it('drops a line that was not finished, the first one too', async () => {
  const first = await MeasurementFile.open(file('torn'), IDENTITY);
  await first.add('fit', 'P2-D0-S2-E4', QUALITY);
  await first.close();
  const whole = readFileSync(file('torn'), 'utf8');
  appendFileSync(file('torn'), '{"part":"fit","plan":"P2');
  const again = await MeasurementFile.open(file('torn'), IDENTITY);
  await again.add('fit', 'P2-D1-S2-E4', QUALITY);
  await again.close();
  expect(readFileSync(file('torn'), 'utf8')).toBe(
    `${whole}${JSON.stringify({ part: 'fit', plan: 'P2-D1-S2-E4', ...QUALITY })}\n`,
  );
  writeFileSync(file('begun'), JSON.stringify(IDENTITY).slice(0, 20));
  await (await MeasurementFile.open(file('begun'), IDENTITY)).close();
  expect(readFileSync(file('begun'), 'utf8')).toBe(`${JSON.stringify(IDENTITY)}\n`);
});

it.each([
  ['other data', `${JSON.stringify({ ...IDENTITY, sha256: 'xyz' })}\n`, /has sha256 "xyz"; expected "def"/],
  ['another run', `${JSON.stringify({ ...IDENTITY, cqil: 'eval' })}\n`, /holds no measurements/],
  ['a text', 'Once upon a time\nthere was\n', /holds no measurements/],
  ['a text without a line', 'Once upon a time', /holds no measurements/],
  ['a list', '[1]\n', /holds no measurements/],
  ['null', 'null\n', /holds no measurements/],
  [
    'a damaged line',
    `${JSON.stringify(IDENTITY)}\n{"part":"fit"}\n`,
    /^Line 2 of the file of measurements .* is damaged/,
  ],
  [
    'a line of another kind',
    `${JSON.stringify(IDENTITY)}\n${JSON.stringify({ part: 'fit', plan: 'x', ...QUALITY, kl: '0.1' })}\n`,
    /^Line 2 .* is damaged/,
  ],
])('refuses %s and leaves it as it is', async (name, content, message) => {
  writeFileSync(file(name), content);
  await expectRejection('INVALID_ARGUMENT', MeasurementFile.open(file(name), IDENTITY), message);
  expect(readFileSync(file(name), 'utf8')).toBe(content);
});

it('refuses a folder', async () => {
  await expectRejection('FILE_NOT_FOUND', MeasurementFile.open(folder, IDENTITY), /cannot be used/);
});
