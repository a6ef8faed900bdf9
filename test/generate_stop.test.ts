import { describe, expect, it } from 'vitest';
import { StopMatcher, type StopUnits } from '../lib/generate/stop.js';
import { randomUniform } from './support/random.js';

/** The text before the stop string that is complete first; of two complete at once, the longer. */
function cutSlowly(text: string, stops: string[]): string | undefined {
  for (let end = 1; end <= text.length; end++) {
    const found = stops.filter((stop) => text.slice(0, end).endsWith(stop)).sort((a, b) => b.length - a.length)[0];
    if (found !== undefined) return text.slice(0, end - found.length);
  }
  return undefined;
}

/** What may be shown of a text so far: all but the longest end that begins a stop string. */
function safeSlowly(text: string, stops: string[]): string {
  for (let start = 0; start < text.length; start++) {
    if (stops.some((stop) => stop.startsWith(text.slice(start)))) return text.slice(0, start);
  }
  return text;
}

function feed(pieces: string[], stops: string[]): { text: string; stopped: boolean } {
  const matcher = new StopMatcher(stops);
  let text = '';
  for (const piece of pieces) {
    const shown = matcher.push(piece);
    text += shown.text;
    if (shown.stopped) return { text, stopped: true };
  }
  return { text: text + matcher.flush(), stopped: false };
}

/** Feeds text and control tokens, as numbers, in turn. */
function feedControls(
  parts: Array<string | number>,
  stops: Array<string | StopUnits>,
): { text: string; stopped: boolean } {
  const matcher = new StopMatcher(stops);
  let text = '';
  for (const part of parts) {
    const shown = typeof part === 'number' ? matcher.push('', part) : matcher.push(part);
    text += shown.text;
    if (shown.stopped) return { text, stopped: true };
  }
  return { text: text + matcher.flush(), stopped: false };
}

describe('stop strings with control tokens', () => {
  it.each<[Array<string | number>, Array<string | StopUnits>, string, boolean]>([
    [['a', 7, 'b'], [[7]], 'a', true],
    [['a', 8, 'b'], [[7]], 'ab', false],
    [['ab', 7], [['b', 7]], 'a', true],
    [['a', 'b', 7, 'c', 'd'], [['b', 7, 'c']], 'a', true],
    [['ab', 8, 'c'], [['b', 7, 'c']], 'abc', false],
    [['abb', 7], [['b', 'b', 7], [7]], 'a', true],
    [['xy', 7, 'xy', 7, 'xz'], [['x', 'y', 7, 'x', 'z']], 'xy', true],
    [['7'], [[7]], '7', false],
    // A control token has no text, so it does not part what is seen.
    [['a', 7, 'b', 'c'], ['abc', [9]], '', true],
    [['a', 7, 'b'], [['a', 'b', 9]], 'ab', false],
  ])('%j cut by %j is %j', (parts, stops, text, stopped) => {
    expect(feedControls(parts, stops)).toEqual({ text, stopped });
  });

  it('hold back no more than the characters that may be cut', () => {
    const matcher = new StopMatcher([['b', 7, 'c', 'd']]);
    expect(matcher.push('ab', 7).text).toBe('a');
    expect(matcher.push('c').text).toBe('');
    expect(matcher.push('x').text).toBe('bcx');
    expect(matcher.push('b').text).toBe('');
    expect(matcher.push('', 8).text).toBe('b');
  });
});

describe('stop strings', () => {
  it.each<[string[], string[], string, boolean]>([
    [['Hello', ' wor', 'ld'], [' world'], 'Hello', true],
    [['Hello', ' wor', 'ks'], [' world'], 'Hello works', false],
    [['Hello wor'], [' world'], 'Hello wor', false],
    [['a\n\nb'], ['\n\n'], 'a', true],
    [['abcd'], ['bc', 'abcd'], 'a', true],
    [['xabc'], ['c', 'abc'], 'x', true],
    [['aab'], ['ab'], 'a', true],
    [['abababc'], ['ababc'], 'ab', true],
    [['I like ', '😀', '!'], ['😀!'], 'I like ', true],
    [['I like ', '😁', '!'], ['😀!'], 'I like 😁!', false],
    [['stop'], ['stop'], '', true],
    [['', '', ''], ['x'], '', false],
    [['anything'], [], 'anything', false],
  ])('%j cut by %j is %j', (pieces, stops, text, stopped) => {
    expect(feed(pieces, stops)).toEqual({ text, stopped });
  });

  it('shows exactly what is safe after every piece, for random texts cut at random', () => {
    const random = randomUniform(2);
    const word = (most: number): string =>
      Array.from({ length: Math.floor(random() * most) }, () => 'ab😀'[Math.floor(random() * 2.2)]!).join('');
    for (let round = 0; round < 3000; round++) {
      const stops = Array.from({ length: 1 + Math.floor(random() * 3) }, () => word(5)).filter((stop) => stop !== '');
      const pieces = Array.from({ length: Math.floor(random() * 8) }, () => word(4));
      const matcher = new StopMatcher(stops);
      let pushed = '';
      let shown = '';
      let stopped = false;
      for (const piece of pieces) {
        pushed += piece;
        const next = matcher.push(piece);
        shown += next.text;
        stopped = next.stopped;
        expect(shown).toBe(cutSlowly(pushed, stops) ?? safeSlowly(pushed, stops));
        if (stopped) break;
      }
      expect(stopped).toBe(cutSlowly(pushed, stops) !== undefined);
      if (!stopped) expect(shown + matcher.flush()).toBe(pushed);
    }
  });

  it('takes linear time on a text made to be almost a stop string', () => {
    const stop = `${'a'.repeat(20_000)}b`;
    const started = process.cpuUsage();
    expect(
      feed(
        Array.from({ length: 20_000 }, () => 'aaaa'),
        [stop],
      ).text,
    ).toHaveLength(80_000);
    expect(process.cpuUsage(started).user / 1000).toBeLessThan(2000);
  });
});
