import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { inspect } from 'node:util';
import { CqilError } from '../errors.js';

/** The place of a file or folder: a path, or a `file:` URL as an object or as text. */
export type Location = string | UrlLike;

/** A `URL`, of this realm or another. */
export interface UrlLike {
  readonly href: string;
  readonly protocol: string;
}

export function isUrl(value: unknown): value is UrlLike {
  if (typeof value !== 'object' || value === null) return false;
  try {
    const { href, protocol } = value as Partial<UrlLike>;
    return typeof href === 'string' && typeof protocol === 'string';
  } catch {
    return false; // a proxy or a getter that throws
  }
}

/**
 * An absolute path of the same place, relative to `folder` unless it is one already. Throws FILE_NOT_FOUND for a
 * relative one where the current folder was deleted; `what` names it in the error.
 */
export function absolutePath(location: string, what: string, folder = ''): string {
  try {
    return path.resolve(folder, location);
  } catch (cause) {
    throw new CqilError(
      'FILE_NOT_FOUND',
      `${what} is ${location}, in a current folder that cannot be found (${(cause as Error).message}); expected an ` +
        'absolute path.',
      { cause },
    );
  }
}

/**
 * The path that a location stands for. Throws INVALID_ARGUMENT when it stands for none; `what` names it in the error.
 */
export function pathOf(location: Location, what: string): string {
  // One letter before the colon is a drive, not a scheme.
  const scheme =
    typeof location === 'string'
      ? /^([a-z][a-z0-9+.-]+):\/\//i.exec(location)?.[1]?.toLowerCase()
      : isUrl(location)
        ? location.protocol.slice(0, -1)
        : undefined;
  if (scheme === undefined) {
    if (typeof location === 'string' && location !== '') return location;
    throw new CqilError(
      'INVALID_ARGUMENT',
      `${what} is ${inspect(location, { depth: 0 })}; expected a path or a file: URL.`,
    );
  }
  const href = typeof location === 'string' ? location : location.href;
  if (scheme !== 'file')
    throw new CqilError(
      'INVALID_ARGUMENT',
      `${what} is ${href}, which is no file on this machine; expected a path or a file: URL.`,
    );
  try {
    return fileURLToPath(href);
  } catch (cause) {
    throw new CqilError(
      'INVALID_ARGUMENT',
      `${what} is ${href}, which is no path here (${(cause as Error).message}); expected a path or a file: URL.`,
      { cause },
    );
  }
}
