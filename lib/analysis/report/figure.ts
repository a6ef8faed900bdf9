import { markup, type Content, type Markup } from './markup.js';

export interface Drawing {
  /** Unique in the page. */
  id: string;
  /** What it is, for those who do not see it, and what it says. */
  title: string;
  description: string;
  /** Pixels. */
  width: number;
  height: number;
  body: Content;
  /**
   * Keeps its size and scrolls sideways in a box of its own where the page is narrower; otherwise it shrinks and grows
   * with the page.
   */
  scrolls?: boolean;
}

/** An inline SVG that says in words what it shows. */
export function drawing({ id, title, description, width, height, body, scrolls }: Drawing): Markup {
  const [w, h] = [Math.ceil(width), Math.ceil(height)];
  const svg = markup`<svg role="img" aria-labelledby="${id}-title ${id}-desc" viewBox="0 0 ${w} ${h}"${scrolls ? markup` width="${w}" height="${h}"` : ''}>
<title id="${id}-title">${title}</title>
<desc id="${id}-desc">${description}</desc>
${body}
</svg>`;
  return scrolls ? markup`<div class="scroll">${svg}</div>` : svg;
}

/** A figure of the page: drawings, a caption, and what belongs to both. */
export function figure(content: Content, caption: Content): Markup {
  return markup`<figure>
${content}
<figcaption>${caption}</figcaption>
</figure>
`;
}

/** Coloured squares with their names. */
export function legend(entries: ReadonlyArray<readonly [swatchClass: string, name: string]>): Markup {
  return markup`<ul class="legend">${entries.map(([swatchClass, name]) => markup`<li><span class="swatch ${swatchClass}"></span>${name}</li>`)}</ul>`;
}

/** A table in a box of its own, below its caption: the first column to the left, all others to the right. */
export function table(
  id: string,
  caption: string,
  header: readonly Content[],
  rows: ReadonlyArray<readonly Content[]>,
): Markup {
  // Not a caption element: that would scroll sideways with the table.
  return markup`<p class="caption" id="${id}">${caption}</p>
<div class="scroll"><table aria-labelledby="${id}">
<thead><tr>${header.map((cell) => markup`<th scope="col">${cell}</th>`)}</tr></thead>
<tbody>
${rows.map(
  ([first, ...rest]) => markup`<tr><th scope="row">${first}</th>${rest.map((cell) => markup`<td>${cell}</td>`)}</tr>
`,
)}</tbody>
</table></div>
`;
}
