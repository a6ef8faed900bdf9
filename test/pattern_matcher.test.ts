import { describe, expect, it } from 'vitest';
import { PatternMatcher } from '../lib/tokenizer/patterns/matcher.js';
import { compilePattern } from '../lib/tokenizer/patterns/program.js';
import { randomUniform } from './support/random.js';

/** The ends of all matches, and how often the matcher paused. */
function find(
  source: string,
  text: string,
  limits?: { atOnce: number; beforeMemory: number },
): { ends: number[]; pauses: number } {
  const matcher = new PatternMatcher(compilePattern(source), text, limits);
  const ends: number[] = [];
  let pauses = 0;
  for (let found = matcher.next(); found !== false; found = matcher.next()) {
    if (found) ends.push(matcher.start, matcher.end);
    else pauses++;
  }
  return { ends, pauses };
}

/** The matches that the engine's own regular expressions find. */
function expected(source: string, text: string): number[] {
  return [...text.matchAll(new RegExp(source, 'gu'))].flatMap(({ 0: match, index }) => [index, index + match.length]);
}

describe('the pattern matcher', () => {
  it('finds what regular expressions do, in thousands of random patterns', () => {
    const random = randomUniform(9);
    const pick = (from: readonly string[]): string => from[Math.floor(random() * from.length)]!;
    const atoms = [
      'a',
      'b',
      '[ab]',
      '[^a]',
      '\\s',
      '\\S',
      '\\p{L}',
      '\\n',
      '[\\r\\n]',
      '.',
      '(?=a)',
      '(?!b)',
      '(?<=a)',
      '(?<![\\s\\S])',
      '(?![\\s\\S])',
      '(?=a+b)',
      '(?!a*b)',
      '\u{1f600}',
    ];
    const pattern = (depth: number): string => {
      let source = '';
      for (let i = 0; i <= random() * 3; i++) {
        const isGroup = depth > 0 && random() < 0.35;
        const atom = isGroup ? `(?:${pattern(depth - 1)})` : pick(atoms);
        const repeats = random() < 0.5 && !/^\(\?[=!<]/.test(atom);
        // Engines differ in what they make of an empty turn in a counted group.
        source += atom + (repeats ? pick(isGroup ? ['*', '+', '{2}'] : ['*', '+', '?', '{2}', '{1,3}', '{2,}']) : '');
      }
      return random() < 0.3 ? `${source}|${pattern(Math.max(0, depth - 1))}` : source;
    };
    const letters = ['a', 'b', 'a', ' ', '\n', '1', 'é', '\r'];
    for (let i = 0; i < 2000; i++) {
      const source = pattern(3);
      // The engine's looks stand between the halves of a surrogate pair, too, which is an error of its own.
      const characters =
        source.includes('(?=') || source.includes('(?!') || source.includes('(?<')
          ? letters
          : [...letters, '\u{1f600}', '\ud83d'];
      const text = Array.from({ length: random() * 20 }, () => pick(characters)).join('');
      // Paused, and remembering, from the first steps on in every other.
      const limits = i % 2 === 0 ? undefined : { atOnce: 7, beforeMemory: 5 };
      expect(find(source, text, limits).ends, `/${source}/ in ${JSON.stringify(text)}`).toEqual(expected(source, text));
    }
  });

  it.each([
    ['(?:a|a)*c', 'a'.repeat(40)],
    ['(?:a+)+$b', 'a'.repeat(40)],
    ['(?:(?:a*)*)*c', 'a'.repeat(40)],
    ['(?=(?:a+)+c)a', 'a'.repeat(40)],
    ['(?:a?){30}a{30}c', 'a'.repeat(30)],
  ])('takes no exponential time: /%s/', (source, text) => {
    const { ends, pauses } = find(source.replace('$', '(?![\\s\\S])'), text);
    expect(ends).toEqual([]);
    expect(pauses).toBeLessThan(100);
  });

  it.each(['\\s+(?![\\s\\S])', '(?:\\s+)+(?![\\s\\S])', '(?:\\s|\\s)*x', '(?:\\s*)*y'])(
    'takes time with the length of a run, not with its square: /%s/',
    (source) => {
      const pauses = (count: number): number => find(source, `x${' '.repeat(count)}x`).pauses;
      expect(pauses(100_000)).toBeLessThan(15 * pauses(10_000) + 15);
    },
  );

  it.each([
    '(',
    'a)',
    '[a',
    'a**',
    '(a)\\1',
    '(?<=ab)c',
    '\\q',
    '(?:'.repeat(100) + ')'.repeat(100),
    '(?:(?:ab){99}){99}',
    'x'.repeat(1 << 15),
  ])('refuses %s', (source) => expect(() => compilePattern(source)).toThrow(SyntaxError));
});
