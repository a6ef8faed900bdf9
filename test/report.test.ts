import { describe, expect, it } from 'vitest';
import { explanation, headline } from '../lib/analysis/report/headline.js';
import { reportPage } from '../lib/analysis/report/page.js';
import { pageOf, sampleReport, sampleRow, spread } from './support/report_sample.js';
import { elementsOf, parseXml, textOf, withClass, type XmlElement } from './support/xml.js';

function byId(page: XmlElement, id: string): XmlElement {
  const found = elementsOf(page).filter(({ attributes }) => attributes.id === id);
  expect(found, id).toHaveLength(1);
  return found[0]!;
}

/** Cells of the table below the caption of this id. */
function cellsOf(page: XmlElement, id: string): string[][] {
  const table = elementsOf(page, 'table').find(({ attributes }) => attributes['aria-labelledby'] === id)!;
  return elementsOf(table, 'tr').map((row) => row.children.filter((child) => typeof child !== 'string').map(textOf));
}

const HOSTILE =
  `</title><script>alert("1")</script>'&amp;&<img src=x onerror=alert(1)>]]>\u202e\u0000\u0007\ud800 ` + `--> \${x}`;

describe('the page', () => {
  it('is well-formed, and complete without a network', () => {
    const data = {
      ...sampleReport(),
      front: {
        file: 'search.json',
        text: 'text.txt',
        sha256: 'abc',
        tokens: 99,
        seed: 3,
        plans: [
          {
            ...sampleRow('P2-D0-S2-E6', 8, 1.6, 0.04, -0.2),
            method: 'uniform',
            kl: 0.04,
            klStandardError: 0.001,
            perplexity: 9.5,
          },
        ],
      },
    };
    const html = reportPage(data);
    const page = parseXml(html);
    expect(html.startsWith('<!DOCTYPE html>\n')).toBe(true);
    expect(html).not.toMatch(/\b(?:https?|ftp|data|javascript):|url\(|@import|\b(?:src|href|srcset)\s*=/i);
    const names = new Set(elementsOf(page).map(({ name }) => name));
    for (const forbidden of [
      'script',
      'link',
      'img',
      'iframe',
      'object',
      'embed',
      'use',
      'image',
      'foreignObject',
      'form',
      'base',
    ])
      expect(names.has(forbidden), forbidden).toBe(false);
    expect(
      elementsOf(page, 'meta').some(
        ({ attributes }) => attributes.content === "default-src 'none'; style-src 'unsafe-inline'",
      ),
    ).toBe(true);
  });

  it('says in words what every drawing shows, and names nothing twice', () => {
    const page = pageOf(sampleReport());
    const drawings = elementsOf(page, 'svg');
    expect(drawings.length).toBe(7);
    for (const { attributes } of drawings) {
      expect(attributes.role).toBe('img');
      for (const id of attributes['aria-labelledby']!.split(' '))
        expect(textOf(byId(page, id)).length).toBeGreaterThan(5);
    }
    const ids = elementsOf(page).flatMap(({ attributes }) => attributes.id ?? []);
    expect(new Set(ids).size).toBe(ids.length);
    for (const { attributes } of elementsOf(page, 'table')) byId(page, attributes['aria-labelledby']!);
  });

  it('shows hostile names as text', () => {
    const data = sampleReport();
    data.model.name = HOSTILE;
    data.text.name = HOSTILE;
    data.provenance.command = HOSTILE;
    data.provenance.machine.cpu = HOSTILE;
    data.rows[1]!.name = HOSTILE;
    data.traces[0]!.name = HOSTILE;
    data.front = {
      file: HOSTILE,
      text: HOSTILE,
      sha256: HOSTILE,
      tokens: 1,
      seed: 0,
      plans: [
        {
          ...sampleRow('P2-D0-S2-E6', 8, 1.6, 0.04, -0.2),
          name: HOSTILE,
          method: HOSTILE,
          kl: 0.04,
          klStandardError: 0,
          perplexity: 9,
        },
      ],
    };
    const page = pageOf(data);
    expect(elementsOf(page).filter(({ name }) => name === 'script' || name === 'img')).toEqual([]);
    expect(
      elementsOf(page)
        .flatMap(({ attributes }) => Object.keys(attributes))
        .filter((name) => name.startsWith('on')),
    ).toEqual([]);
    const shown = ['\u202e', '\u0000', '\u0007', '\ud800'].reduce(
      (text, character) => text.replaceAll(character, '\ufffd'),
      HOSTILE,
    );
    expect(textOf(elementsOf(page, 'code')[0]!)).toBe(shown);
    expect(textOf(elementsOf(page, 'h1')[0]!)).toContain(shown);
    expect(cellsOf(page, 'plans-table')[2]![0]).toBe(shown);
  });

  it('has the numbers it was given', () => {
    const data = sampleReport();
    const page = pageOf(data);
    const [, ...rows] = cellsOf(page, 'plans-table');
    expect(rows[0]).toEqual([
      'sequential',
      'lossless',
      '40',
      '2.00 (1.96 – 2.04)',
      '',
      '7.389 ± 0.250',
      '0',
      '0',
      '100.0\u202f%',
    ]);
    expect(rows[1]).toEqual([
      'P2-D0-S2-E6',
      'lossy',
      '30',
      '1.50 (1.47 – 1.53)',
      '−25.0\u202f% (−26.0 … −24.0)',
      '7.614 ± 0.250',
      '0.0300 ± 0.0015',
      '0.2100',
      '97.0\u202f%',
    ]);
    expect(rows).toHaveLength(3);
    const layers = cellsOf(page, 'layers-table').slice(1);
    expect(layers[3]).toEqual(['3', '0.9801', '13.0000', '0.3300', '0.1030', '0.2030', '0.0530']);
    expect(layers.at(-1)![1]).toBe('');
    const phases = Object.fromEntries(cellsOf(page, 'phases-table').slice(1));
    // 42 phases of 1 µs, 41 waits of 0.1 µs.
    expect(phases).toMatchObject({
      embed: '1.0 (2\u202f%)',
      qkv: '8.0 (17\u202f%)',
      waiting: '4.1 (9\u202f%)',
      'the token': '46.1',
    });
  });

  it('names where everything comes from', () => {
    const footer = textOf(elementsOf(pageOf(sampleReport()), 'footer')[0]!);
    for (const part of [
      'sample (0123456789ab)',
      '8 layers',
      '1\u202f234\u202f567 parameters',
      'text.txt (SHA-256 abcdef012345…)',
      '9 interleaved rounds',
      'seed 1',
      'Sample CPU',
      '8.0 GiB',
      'cqil 9.9.9, commit cafe12345678',
      '2030-01-02T03:04:05.678Z',
      'cqil report sample --plan P2-S2-E6',
    ])
      expect(footer).toContain(part);
    const installed = sampleReport();
    installed.provenance.commit = null;
    expect(textOf(elementsOf(pageOf(installed), 'footer')[0]!)).not.toContain('commit');
  });

  it('stands without other plans, without traces, and with one layer', () => {
    const data = sampleReport();
    expect(textOf(pageOf({ ...data, traces: [] }))).toContain('Not traced: the backend cpu keeps no times of phases.');
    const alone = pageOf({ ...data, rows: data.rows.slice(0, 1) });
    expect(textOf(elementsOf(alone, 'h1')[0]!)).toMatch(/^The sequential model takes 2\.00 ms per token/);
    expect(withClass(alone, 'bracket')).toEqual([]);
    expect(elementsOf(pageOf(sampleReport(1)), 'svg')).toHaveLength(7);
  });
});

describe('the headline', () => {
  const sequential = sampleRow('sequential', 8, 2, 0, 0);
  const withChange = (change: number, step: number) => ({
    ...sampleRow('P2-D0-S2-E6', 8, 1.5, 0.03, change),
    change: spread(change, step),
  });

  it('says faster or slower only where the rounds agree', () => {
    expect(headline([sequential, withChange(-0.12, 0.01)])).toBe(
      'P2-D0-S2-E6 takes 12\u202f% less time per token than the sequential model and costs 0.0300 nats.',
    );
    expect(headline([sequential, withChange(0.05, 0.01)])).toBe(
      'P2-D0-S2-E6 takes 5\u202f% more time per token than the sequential model but costs 0.0300 nats.',
    );
    expect(headline([sequential, withChange(-0.05, 0.06)])).toBe(
      'P2-D0-S2-E6 cannot be told from the sequential model by its time per token, but costs 0.0300 nats.',
    );
    expect(headline([sequential, withChange(-0.004, 0.001)])).toContain('takes 0.4\u202f% less');
  });

  it('says lossy and lossless', () => {
    expect(explanation([sequential, withChange(-0.12, 0.01)])).toMatch(
      /^It is lossy: .* perplexity is 7\.61 instead of 7\.39, .* 97\.0\u202f% of tokens\. Sequential is lossless\.$/,
    );
    expect(explanation([sequential])).toMatch(/^Sequential is lossless/);
  });

  it('warns of times from a busy machine', () => {
    const quiet = sampleReport();
    expect(reportPage(quiet)).not.toContain('The machine was busy');
    expect(reportPage({ ...quiet, timing: { ...quiet.timing, busy: true } })).toContain(
      'The machine was busy with something else',
    );
  });
});
