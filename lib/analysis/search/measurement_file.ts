import { open, readFile, type FileHandle } from 'node:fs/promises';
import { appendLine } from '../../util/append_line.js';
import { CqilError } from '../../errors.js';
import type { Quality } from './quality.js';

/** What measurements depend on besides the plan. */
export interface MeasurementIdentity {
  cqil: 'plan search';
  [field: string]: unknown;
}

const MAX_BYTES = 1 << 30;
const FIELDS: ReadonlyArray<keyof Quality> = ['tokens', 'kl', 'klStandardError', 'perplexity', 'topAgreement'];

/**
 * What plans were measured to cost, as JSON lines after one line that says of which model on which data. Every
 * measurement is written when it is made. A last line that was not finished is dropped.
 */
export class MeasurementFile {
  readonly #file: FileHandle;
  readonly #path: string;
  readonly #known: Map<string, Quality>;

  private constructor(file: FileHandle, path: string, known: Map<string, Quality>) {
    this.#file = file;
    this.#path = path;
    this.#known = known;
  }

  /**
   * Opens a file, or makes it.
   *
   * @throws CqilError INVALID_ARGUMENT for a file of another model or other data, or of another kind; FILE_NOT_FOUND
   * for one that cannot be read or written.
   */
  static async open(path: string, identity: MeasurementIdentity): Promise<MeasurementFile> {
    const header = `${JSON.stringify(identity)}\n`;
    let file: FileHandle | undefined;
    try {
      file = await open(path, 'a+');
      const { size } = await file.stat();
      if (size > MAX_BYTES)
        throw new CqilError(
          'INVALID_ARGUMENT',
          `The file of measurements ${path} has ${size} bytes, expected at most ${MAX_BYTES}.`,
        );
      const text = await readFile(file, 'utf8');
      const whole = text.slice(0, text.lastIndexOf('\n') + 1);
      // Only what a search began to write may be dropped: the file could be anything.
      if (whole === '' && !header.startsWith(text)) throw notOurs(path);
      const known = whole === '' ? new Map<string, Quality>() : readLines(whole, path, identity);
      await file.truncate(Buffer.byteLength(whole));
      if (whole === '') await file.appendFile(header);
      return new MeasurementFile(file, path, known);
    } catch (error) {
      await file?.close();
      if (error instanceof CqilError) throw error;
      throw new CqilError(
        'FILE_NOT_FOUND',
        `The file of measurements ${path} cannot be used: ${(error as Error).message}.`,
        { cause: error },
      );
    }
  }

  /** What a plan was measured to cost on a part of the text. */
  get(part: string, plan: string): Quality | undefined {
    return this.#known.get(`${part} ${plan}`);
  }

  async add(part: string, plan: string, quality: Quality): Promise<void> {
    await appendLine(this.#file, `The file of measurements ${this.#path}`, { part, plan, ...quality });
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

function readLines(text: string, path: string, identity: MeasurementIdentity): Map<string, Quality> {
  const [first, ...lines] = text.split('\n').slice(0, -1);
  const found = parse(first!);
  if (found.cqil !== identity.cqil) throw notOurs(path);
  for (const [name, expected] of Object.entries(identity)) {
    const [was, is] = [JSON.stringify(found[name]), JSON.stringify(expected)];
    if (was !== is)
      throw new CqilError(
        'INVALID_ARGUMENT',
        `The file of measurements ${path} has ${name} ${was ?? 'missing'}; expected ${is}, as in this search, or ` +
          'another file.',
      );
  }
  const known = new Map<string, Quality>();
  for (const [i, line] of lines.entries()) {
    const { part, plan, ...quality } = parse(line);
    if (
      typeof part !== 'string' ||
      typeof plan !== 'string' ||
      !FIELDS.every((field) => typeof quality[field] === 'number')
    ) {
      throw new CqilError(
        'INVALID_ARGUMENT',
        `Line ${i + 2} of the file of measurements ${path} is damaged; expected a plan and what it was measured to ` +
          'cost.',
      );
    }
    known.set(`${part} ${plan}`, quality as unknown as Quality);
  }
  return known;
}

function notOurs(path: string): CqilError {
  return new CqilError(
    'INVALID_ARGUMENT',
    `The file ${path} holds no measurements; expected one that cqil plan search wrote, or none.`,
  );
}

function parse(line: string): Record<string, unknown> {
  try {
    return Object(JSON.parse(line)) as Record<string, unknown>;
  } catch {
    return {};
  }
}
