import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { writeFiles } from '../lib/cli/write_files.js';
import { textBeside } from '../lib/cli/text_file.js';
import { loadModel, shippedModelPath } from '../lib/model/load.js';
import { measureSimilarity } from '../lib/analysis/similarity/measure_similarity.js';
import type { ReportData } from '../lib/analysis/report/report_data.js';
import { cqil, type CliRun } from './support/cli.js';
import { expectRejection } from './support/expect_code.js';
import { tempFolder } from './support/temp_folder.js';
import { elementsOf, parseXml, textOf, type XmlElement } from './support/xml.js';

const HELDOUT = textBeside(shippedModelPath());
const QUICK = ['--tokens', '200', '--window', '100', '--budget', '0', '--threads', '2', '--backend', 'cpu'];

type Document = Omit<ReportData, 'rows'> & {
  output: string;
  trace: string | null;
  headline: string;
  rows: Array<Omit<ReportData['rows'][number], 'plan'> & { plan: string }>;
};

/** Cells of the table below the caption of this id, without its header. */
function cellsOf(page: XmlElement, id: string): string[][] {
  const table = elementsOf(page, 'table').find(({ attributes }) => attributes['aria-labelledby'] === id)!;
  return elementsOf(table, 'tr')
    .slice(1)
    .map((row) => row.children.filter((child) => typeof child !== 'string').map(textOf));
}

describe('cqil report', () => {
  const folder = tempFolder();
  let made = 0;

  function write(name: string, content: string | Uint8Array): string {
    const file = path.join(folder, name);
    writeFileSync(file, content);
    return file;
  }

  /** A folder of its own, in which nothing may be left behind. */
  function emptyFolder(): string {
    const place = path.join(folder, `place-${made++}`);
    mkdirSync(place);
    return place;
  }

  function run(args: string[], options?: Parameters<typeof cqil>[1]): Promise<CliRun> {
    return cqil(['report', ...QUICK, ...args], options);
  }

  it('writes a page with the numbers it measured, and the trace of its tokens', async () => {
    const place = emptyFolder();
    const [output, trace] = [path.join(place, 'page.html'), path.join(place, 'trace.json')];
    const { code, stdout, stderr } = await run([
      '--plan',
      'P2-S4-E12',
      '--plan',
      'P4-D1-S4-E12',
      '--plan',
      'sequential',
      '-o',
      output,
      '--trace',
      trace,
      '--json',
    ]);
    expect({ code, lines: stderr.split('\n').at(-2) }).toEqual({ code: 0, lines: `wrote ${output} and ${trace}` });
    const document = JSON.parse(stdout) as Document;
    const page = parseXml(readFileSync(output, 'utf8'));
    expect(readdirSync(place).sort()).toEqual(['page.html', 'trace.json']);

    expect(document).toMatchObject({
      output,
      trace,
      text: { name: 'heldout.txt', tokens: 200, window: 100 },
      model: { layers: 24 },
      timing: { rounds: 3, promptTokens: 16, tokens: 8 },
      front: null,
    });
    expect(document.provenance).toMatchObject({
      seed: 1,
      command:
        'cqil report --plan P2-S4-E12 --plan P4-D1-S4-E12 --plan sequential --tokens 200 --window 100 ' +
        `--budget 0 --output ${output} --trace ${trace} --backend cpu --threads 2 --json`,
      machine: { backend: 'cpu', threads: 2 },
    });
    expect(document.provenance.commit ?? '000000000000').toMatch(/^[0-9a-f]{12}\+?$/);
    expect(document.rows.map(({ plan, lossy, phases }) => ({ plan, lossy, phases }))).toEqual([
      { plan: 'sequential', lossy: false, phases: 120 },
      { plan: 'P2-D0-S4-E12', lossy: true, phases: 100 },
      { plan: 'P4-D1-S4-E12', lossy: true, phases: 90 },
    ]);
    expect(textOf(elementsOf(page, 'h1')[0]!)).toBe(document.headline);
    for (const [i, cells] of cellsOf(page, 'plans-table').entries()) {
      const { plan, phases, quality } = document.rows[i]!;
      expect(cells.slice(0, 3)).toEqual([plan, i === 0 ? 'lossless' : 'lossy', String(phases)]);
      expect(cells[5]).toBe(`${quality.perplexity.toFixed(3)} ± ${quality.perplexityStandardError.toFixed(3)}`);
      expect(cells[6]).toBe(i === 0 ? '0' : `${quality.kl.mean.toFixed(4)} ± ${quality.kl.standardError.toFixed(4)}`);
    }

    // Quality and similarity are those of the other verbs.
    const evaluated = await cqil([
      'eval',
      '--file',
      write('start.txt', await firstText(200)),
      '--window',
      '100',
      '--plan',
      'P2-S4-E12',
      '--backend',
      'cpu',
      '--json',
    ]);
    const { text } = JSON.parse(evaluated.stdout) as { text: { rows: Array<Record<string, unknown>> } };
    for (const [i, { plan: _plan, lossy: _lossy, ...quality }] of text.rows.entries())
      expect(document.rows[i]!.quality).toEqual(quality);
    await using model = await loadModel(undefined, { backend: 'cpu' });
    const similarity = await measureSimilarity(
      model,
      model.tokenizer.encode(readFileSync(HELDOUT, 'utf8')).slice(0, 200),
    );
    expect(document.similarity).toEqual(similarity);
    const titles = elementsOf(page, 'title')
      .map(textOf)
      .filter((title) => title.startsWith('layers '));
    expect(titles).toContain(`layers 4 and 5: ${similarity.inputCosine[4]![5]!.toFixed(4)}`);

    // The page draws the spans that are in the trace file.
    const { traceEvents } = JSON.parse(readFileSync(trace, 'utf8')) as {
      traceEvents: Array<{ ph: string; pid: number; name: string; args: { name: string } }>;
    };
    expect(traceEvents.filter(({ name }) => name === 'process_name').map(({ args }) => args.name)).toEqual([
      'sequential',
      'P2-D0-S4-E12, wide',
      'P2-D0-S4-E12, lanes',
    ]);
    const spans = document.traces.map(({ timeline }) => timeline.spans.length);
    expect(spans).toEqual([122 * 2, 102 * 2, 2 * (2 + 16 * 5) + 4 * (2 * 5 + 2)]);
    expect([1, 2, 3].map((pid) => traceEvents.filter((event) => event.pid === pid && event.ph === 'X').length)).toEqual(
      spans,
    );
    const timeline = elementsOf(page, 'svg').find(({ attributes }) =>
      attributes['aria-labelledby']!.startsWith('timeline-'),
    )!;
    expect(elementsOf(timeline, 'rect')).toHaveLength(spans.reduce((sum, count) => sum + count));
    for (const [i, cell] of cellsOf(page, 'phases-table').at(-1)!.slice(1).entries())
      expect(cell).toBe((document.traces[i]!.timeline.durationNs / 1000).toFixed(1));
  });

  async function firstText(tokens: number): Promise<string> {
    await using model = await loadModel(undefined, { backend: 'cpu' });
    return model.tokenizer.decode(model.tokenizer.encode(readFileSync(HELDOUT, 'utf8')).slice(0, tokens));
  }

  it('draws the front of a search, timed here', async () => {
    const searched = await cqil([
      'plan',
      'search',
      '--file',
      HELDOUT,
      '--tokens',
      '200',
      '--max-kl',
      '0.5',
      '--evaluations',
      '30',
      '--json',
    ]);
    const search = JSON.parse(searched.stdout) as {
      plan: { groups: number[][] };
      front: Array<{ kl: number; phases: number; perplexity: number; klStandardError: number }>;
    };
    const output = path.join(emptyFolder(), 'report.html');
    const { code, stdout } = await run(['--search', write('search.json', searched.stdout), '-o', output, '--json']);
    expect(code).toBe(0);
    const document = JSON.parse(stdout) as Document;
    expect(document.rows).toHaveLength(2);
    expect(document.front).toMatchObject({ file: 'search.json', text: 'heldout.txt', seed: 0 });
    expect(
      document.front!.plans.map(({ kl, phases, perplexity, klStandardError }) => ({
        kl,
        phases,
        perplexity,
        klStandardError,
      })),
    ).toEqual(
      search.front.map(({ kl, phases, perplexity, klStandardError }) => ({ kl, phases, perplexity, klStandardError })),
    );
    const page = parseXml(readFileSync(output, 'utf8'));
    expect(cellsOf(page, 'front-table').map((cells) => cells[4])).toEqual(
      search.front.map(({ kl, klStandardError }) => `${kl.toFixed(4)} ± ${klStandardError.toFixed(4)}`),
    );
    expect(elementsOf(page, 'circle').filter(({ attributes }) => attributes.class === 'm-searched')).toHaveLength(
      search.front.length,
    );
  });

  it('shows a hostile name of a model and of a text as text', async () => {
    const place = emptyFolder();
    const model = path.join(place, `<img src=x onerror='alert(1)'>.gguf`);
    symlinkSync(shippedModelPath(), model);
    const text = path.join(place, '"><script>alert(1)<script>.txt');
    copyFileSync(HELDOUT, text);
    const output = path.join(place, 'report.html');
    expect(await run([model, '--file', text, '-o', output])).toMatchObject({ code: 0 });
    const page = parseXml(readFileSync(output, 'utf8'));
    expect(elementsOf(page).filter(({ name }) => name === 'script' || name === 'img')).toEqual([]);
    const footer = textOf(elementsOf(page, 'footer')[0]!);
    expect(footer).toContain(path.basename(model));
    expect(footer).toContain(path.basename(text));
    // A shell takes the command as it stands.
    expect(footer).toContain(`'${model.replaceAll("'", "'\\''")}'`);
  });

  it('keeps files that are there unless it is forced, and replaces them then', async () => {
    const place = emptyFolder();
    const output = path.join(place, 'report.html');
    writeFileSync(output, 'mine');
    expect(await run(['-o', output])).toMatchObject({
      code: 2,
      stderr: `cqil: The file ${output} exists already; --force overwrites it. (INVALID_ARGUMENT)\n`,
    });
    expect(readFileSync(output, 'utf8')).toBe('mine');
    expect(await run(['-o', output, '--force'])).toMatchObject({ code: 0 });
    expect(readFileSync(output, 'utf8')).toMatch(/^<!DOCTYPE html>/);
  });

  describe('refuses, with one sentence and nothing written,', () => {
    const place = path.join(folder, 'refused');
    const output = path.join(place, 'report.html');
    const short = path.join(folder, 'short.txt');
    const search = (change: object) =>
      write(
        'bad.json',
        JSON.stringify({
          model: { fingerprint: 'ffffffffffff' },
          text: { file: 'a', sha256: 'b', heldOutTokens: 1 },
          seed: 0,
          plan: 'P2-S2-E4',
          front: [],
          ...change,
        }),
      );

    it.each<[what: string, args: () => string[], code: number, message: RegExp]>([
      [
        'an empty text',
        () => ['--file', write('empty.txt', '')],
        2,
        /^cqil: The text .*empty\.txt is empty, expected at least 64 tokens\. \(INVALID_ARGUMENT\)$/,
      ],
      [
        'a short text',
        () => ['--file', write('short.txt', 'Once upon a time.')],
        2,
        /^cqil: The text has \d+ tokens, expected at least one whole window of 100\. \(INVALID_ARGUMENT\)$/,
      ],
      [
        'a text shorter than a window',
        () => ['--window', '201'],
        2,
        /^cqil: The text has 200 tokens, expected at least one whole window of 201\. \(INVALID_ARGUMENT\)$/,
      ],
      [
        'a window the model cannot hold',
        () => ['--tokens', '600', '--window', '513'],
        2,
        /^cqil: The window is 513 tokens, expected at most the model's context length, 512\. \(INVALID_ARGUMENT\)$/,
      ],
      [
        'a binary text',
        () => ['--file', write('binary.txt', Uint8Array.of(0, 1, 2))],
        2,
        /is binary data, expected UTF-8 text\. \(INVALID_ARGUMENT\)$/,
      ],
      ['a text that is not there', () => ['--file', `${short}.none`], 1, /cannot be read: .*\(FILE_NOT_FOUND\)$/],
      [
        'a plan for another model',
        () => ['--plan', 'P2-S4-E99'],
        1,
        /ends at layer 99, but the model has 24 layers\. \(INVALID_PLAN\)$/,
      ],
      [
        'a folder that is not there',
        () => ['-o', path.join(place, 'none', 'report.html')],
        1,
        /cannot be written: there is no folder .*\(FILE_NOT_FOUND\)$/,
      ],
      [
        'a folder as output',
        () => ['-o', folder, '--force'],
        1,
        /cannot be written: it is not a regular file\. \(FILE_NOT_FOUND\)$/,
      ],
      [
        'a trace that cannot be written',
        () => ['--trace', path.join(place, 'none', 'trace.json')],
        1,
        /cannot be written: there is no folder .*\(FILE_NOT_FOUND\)$/,
      ],
      [
        'a trace in the place of the page',
        () => ['--trace', path.join(place, '.', 'report.html')],
        2,
        /^cqil: Two outputs go to .*; expected different files\. \(INVALID_ARGUMENT\)$/,
      ],
      [
        'a search of another model',
        () => ['--search', search({})],
        2,
        /is of the model ffffffffffff; expected this one, [0-9a-f]{12}\. \(INVALID_ARGUMENT\)$/,
      ],
      [
        'a search that is none',
        () => ['--search', write('none.json', '[1, 2]')],
        2,
        /has no front; expected what cqil plan search --json prints\. \(INVALID_ARGUMENT\)$/,
      ],
      [
        'a search that is no JSON',
        () => ['--search', write('text.json', '{')],
        2,
        /is not JSON; expected what cqil plan search --json prints\. \(INVALID_ARGUMENT\)$/,
      ],
      [
        'a search whose plan is a path',
        () => ['--search', search({ plan: HELDOUT })],
        2,
        /has no plan as plan; expected what cqil plan search --json prints\. \(INVALID_ARGUMENT\)$/,
      ],
      [
        'a search with a number missing',
        () => ['--search', search({ front: [{ plan: 'P2-S2-E4', phases: 75, method: 'uniform', kl: 'none' }] })],
        2,
        /has no number as front\[0\]\.kl; expected/,
      ],
    ])('%s', async (_what, args, code, message) => {
      mkdirSync(place, { recursive: true });
      const given = args();
      const result = await run([...(given.includes('-o') ? [] : ['-o', output]), ...given]);
      expect(result).toMatchObject({ code, stdout: '' });
      expect(result.stderr.trimEnd()).toMatch(message);
      expect(result.stderr.match(/\n/g)).toHaveLength(1);
      expect(readdirSync(place)).toEqual([]);
    });
  });

  it('writes nothing when it is interrupted', async () => {
    const place = emptyFolder();
    const controller = new AbortController();
    const running = run(['-o', path.join(place, 'report.html'), '--tokens', '700', '--budget', '600'], {
      signal: controller.signal,
    });
    setTimeout(() => controller.abort(), 300);
    expect(await running).toMatchObject({ code: 130, stdout: '', stderr: '' });
    expect(readdirSync(place)).toEqual([]);
  });

  it('asks for a text where the model has none beside it', async () => {
    const place = emptyFolder();
    const model = path.join(place, 'alone.gguf');
    symlinkSync(shippedModelPath(), model);
    const { code, stderr } = await run([model, '-o', path.join(place, 'report.html')]);
    expect({ code, stderr }).toEqual({
      code: 2,
      stderr:
        `cqil: There is no text: ${path.join(place, 'heldout.txt')} does not exist; expected --file TEXT. ` +
        `(INVALID_ARGUMENT)\n`,
    });
    expect(existsSync(path.join(place, 'report.html'))).toBe(false);
  });
});

describe('writing several files', () => {
  const folder = tempFolder();

  it('leaves none when one of them fails', async () => {
    const [first, second] = ['first', 'second'].map((name) => path.join(folder, name)) as [string, string];
    // Someone else's file where the second would be written in full.
    writeFileSync(`${second}.${process.pid}.part`, 'theirs');
    await expectRejection(
      'FILE_NOT_FOUND',
      writeFiles(
        [
          { file: first, text: '1' },
          { file: second, text: '2' },
        ],
        false,
      ),
      /second cannot be written/,
    );
    expect(readdirSync(folder)).toEqual([`second.${process.pid}.part`]);
  });
});
