import { readFileSync, statSync, type Stats } from 'node:fs';
import path from 'node:path';
import { CqilError } from '../errors.js';
import { parseJson, utf8Text } from '../util/json.js';

const MAX_FILE_BYTES = 1 << 20;

/**
 * The JSON file that a path names, or undefined when the text does not look like a path at all. A folder stands for its
 * config.json.
 */
export function planFile(location: string): string | undefined {
  const stats = statsOf(location);
  if (stats?.isDirectory()) return path.join(location, 'config.json');
  return stats || /[\\/]|\.json$/i.test(location) ? location : undefined;
}

/** Whether a path names a folder with a config.json in it. */
export function isModelFolder(location: string): boolean {
  return statsOf(path.join(location, 'config.json'))?.isFile() ?? false;
}

/** Reads a plan file without checking the plan. Throws FILE_NOT_FOUND; INVALID_PLAN when it is not JSON. */
export function readPlanFile(file: string): unknown {
  const stats = statsOf(file);
  if (!stats?.isFile())
    throw new CqilError(
      'FILE_NOT_FOUND',
      `The plan file ${file} ${stats ? 'is not a regular file' : 'does not exist or cannot be reached'}.`,
    );
  if (/\.(gguf|safetensors)$/i.test(file))
    throw new CqilError('INVALID_PLAN', `The file ${file} is a model's and no plan; expected a JSON file.`);
  if (stats.size > MAX_FILE_BYTES)
    throw new CqilError(
      'INVALID_PLAN',
      `The file ${file} is no plan: it has ${stats.size} bytes; expected JSON of at most ${MAX_FILE_BYTES}.`,
    );
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (cause) {
    throw new CqilError('FILE_NOT_FOUND', `The plan file ${file} cannot be read: ${(cause as Error).message}.`, {
      cause,
    });
  }
  const source = `The plan file ${file}`;
  return parseJson(utf8Text(bytes, source, 'INVALID_PLAN'), source, 'INVALID_PLAN');
}

function statsOf(file: string): Stats | undefined {
  try {
    return statSync(file);
  } catch {
    return undefined; // absent, unreachable, or no possible path
  }
}
