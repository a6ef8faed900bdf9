/** A piece of HTML or SVG that is well-formed by itself. */
export class Markup {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/**
 * What a template takes: text and numbers are escaped, pieces of markup are not, lists are joined, nothing is left out.
 */
export type Content = Markup | string | number | null | undefined | false | readonly Content[];

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };
/** What XML forbids even escaped, lone surrogates, and what would turn the text around it about. */
const FORBIDDEN = /(?![\t\n\r])\p{Cc}|\p{Cs}|[\u202a-\u202e\u2066-\u2069\ufffe\uffff]/gu;

/** Text for an element or a quoted attribute. */
function escapeText(text: string): string {
  return text.replace(FORBIDDEN, '\ufffd').replace(/[&<>"']/g, (character) => ENTITIES[character]!);
}

/** A template whose values are escaped unless they are markup themselves. */
export function markup(literals: TemplateStringsArray, ...values: Content[]): Markup {
  return new Markup(literals.map((literal, i) => (i === 0 ? literal : render(values[i - 1]) + literal)).join(''));
}

function render(value: Content): string {
  if (value === undefined || value === null || value === false) return '';
  if (value instanceof Markup) return value.text;
  if (typeof value === 'object') return value.map(render).join('');
  return escapeText(String(value));
}
