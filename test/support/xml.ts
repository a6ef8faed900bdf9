/** An element of a well-formed document. */
export interface XmlElement {
  name: string;
  attributes: Record<string, string>;
  children: Array<XmlElement | string>;
}

const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', '#39': "'" };
const ATTRIBUTE = /\s+([A-Za-z_][\w:.-]*)="([^"<]*)"/y;
const NAME = /[A-Za-z_][\w:.-]*/y;

/**
 * Parses markup as strictly as XML asks: one root, every tag closed in order, attributes quoted and unique, no bare &
 * or <.
 */
export function parseXml(text: string): XmlElement {
  let at = 0;
  const fail = (problem: string): never => {
    throw new Error(`${problem} at ${at}: ${text.slice(at, at + 80)}`);
  };
  const match = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (found) at = pattern.lastIndex;
    return found;
  };
  const decode = (raw: string): string => {
    if (/(?![\t\n\r])\p{Cc}|\p{Cs}/u.test(raw)) fail('a character that XML forbids');
    return raw.replace(/&([^;\s]*);?/g, (whole, name: string) =>
      whole.endsWith(';') && name in ENTITIES ? ENTITIES[name]! : fail(`the entity ${whole}`),
    );
  };
  const element = (): XmlElement => {
    if (text[at] !== '<') fail('no tag');
    at++;
    const name = match(NAME)?.[0] ?? fail('no name');
    const attributes: Record<string, string> = {};
    for (let found = match(ATTRIBUTE); found; found = match(ATTRIBUTE)) {
      if (found[1]! in attributes) fail(`the attribute ${found[1]} twice`);
      attributes[found[1]!] = decode(found[2]!);
    }
    if (match(/\s*\/>/y)) return { name, attributes, children: [] };
    if (!match(/\s*>/y)) fail('an unfinished tag');
    const children: XmlElement['children'] = [];
    for (;;) {
      const raw = match(/[^<]*/y)![0];
      if (raw) children.push(decode(raw));
      if (at >= text.length) fail(`no end of ${name}`);
      if (match(/<\//y)) {
        if (match(NAME)?.[0] !== name || !match(/\s*>/y)) fail(`another end than that of ${name}`);
        return { name, attributes, children };
      }
      children.push(element());
    }
  };
  match(/(<!DOCTYPE html>)?\s*/y);
  const root = element();
  match(/\s*/y);
  if (at < text.length) fail('something after the root');
  return root;
}

/** Every element below one, itself included, in the order of the document. */
export function elementsOf(root: XmlElement, name?: string): XmlElement[] {
  const below = root.children.flatMap((child) => (typeof child === 'string' ? [] : elementsOf(child)));
  const all = [root, ...below];
  return name === undefined ? all : all.filter((element) => element.name === name);
}

/** The text of an element and all in it. */
export function textOf(element: XmlElement): string {
  return element.children.map((child) => (typeof child === 'string' ? child : textOf(child))).join('');
}

/** The elements of a class. */
export function withClass(root: XmlElement, className: string): XmlElement[] {
  return elementsOf(root).filter(({ attributes }) => attributes.class?.split(' ').includes(className));
}
