import { describe, expect, it } from 'vitest';
import { beginsAnew, inNormalForm, type NormalForm } from '../lib/tokenizer/normal_form.js';
import { randomUniform } from './support/random.js';

const FORMS: NormalForm[] = ['NFC', 'NFD', 'NFKC', 'NFKD'];

function normalized(text: string, form: NormalForm): string {
  const work = inNormalForm(text, form);
  for (;;) {
    const { done, value } = work.next();
    if (done) return value;
  }
}

describe('normal forms in pieces', () => {
  it('are cut only before characters that no form joins to what stands before', () => {
    const characters: string[] = [];
    for (let code = 0; code < 0x110000; code++)
      if (code < 0xd800 || code > 0xdfff) characters.push(String.fromCodePoint(code));
    // Whatever a form can join to a character before it stands behind the first in some decomposition.
    const joining = new Set(
      characters.flatMap((character) =>
        character.normalize('NFD').length > 1 ? [...character.normalize('NFD')].slice(1) : [],
      ),
    );
    const moves = (character: string): boolean =>
      `\u0345${character}`.normalize('NFD') !== `\u0345${character}` ||
      `${character}\u0334`.normalize('NFD') !== `${character}\u0334`;
    const wrong = characters.filter((character) => {
      if (!beginsAnew(character, 0)) return false;
      return ['NFD', 'NFKD'].some((form) => {
        const first = String.fromCodePoint(character.normalize(form).codePointAt(0)!);
        return joining.has(first) || moves(first);
      });
    });
    expect(wrong).toEqual([]);
  });

  it.each(FORMS)('%s is what it is in one piece, for long texts and long rows of marks', (form) => {
    const random = randomUniform(4);
    const characters = [
      ...'aeou 1',
      '\u0301',
      '\u0323',
      '\u0327',
      '\u0345',
      '\u0334',
      '\u0308',
      '\u093e',
      '\u0344',
      'ᄀ',
      'ᅡ',
      'ᆨ',
      '각',
      'ﷺ',
      'ﬁ',
      'が',
      '\uff76',
      '\uff9e',
      '😀',
      '한',
      '\u0f71',
      '\u0f72',
    ];
    const marks = characters.filter((character) => /\p{M}/u.test(character));
    for (let i = 0; i < 20; i++) {
      const from = i % 2 === 0 ? characters : marks;
      const text =
        'a' +
        Array.from(
          { length: i % 2 === 0 ? 20_000 : 300 + 10 * i },
          () => from[Math.floor(random() * from.length)]!,
        ).join('');
      expect(normalized(text, form)).toBe(text.normalize(form));
    }
  });

  it('puts many marks in order in time with their number', () => {
    const text = `a${'\u0301\u0323'.repeat(50_000)}`;
    expect(normalized(text, 'NFD')).toBe(`a${'\u0323'.repeat(50_000)}${'\u0301'.repeat(50_000)}`);
  });
});
