import { open, readFile, type FileHandle } from 'node:fs/promises';
import { CqilError } from '../errors.js';

/** What the lines of a file belong to; only a file of the same is gone on with. */
export interface LinesIdentity {
  /** The command that writes such files. */
  cqil: string;
  [field: string]: unknown;
}

/** What messages say of a kind of file. */
export interface LinesWords {
  /** What such a file is called: `The file of measurements x.jsonl has 3 bytes`. */
  name: string;
  /** What a file of another kind is or does: `The file x.jsonl holds no measurements`. */
  isNone: string;
  /** What stands before a field that differs: `The file of measurements x.jsonl has tokens 3`. */
  has: string;
  /** What goes on with the file: `expected 4, as in this search`. */
  user: string;
  /** What a line holds: `expected a plan`. */
  line: string;
}

const MAX_BYTES = 1 << 30;

/**
 * A file of JSON lines, after one line that says what they belong to. Each line is written when its value is there, so
 * that what was stopped can go on where it was. A last line that was not finished is dropped.
 */
export class LinesFile {
  readonly #file: FileHandle;
  readonly #path: string;
  readonly #words: LinesWords;

  private constructor(file: FileHandle, path: string, words: LinesWords) {
    this.#file = file;
    this.#path = path;
    this.#words = words;
  }

  /**
   * Opens a file, or makes it. `keep` gets each line that stands in it, {} where that is no JSON, and says whether it
   * holds what it should.
   *
   * @throws CqilError INVALID_ARGUMENT for a file with another identity, of another kind, or with a line that is not
   * kept; FILE_NOT_FOUND for one that cannot be read or written.
   */
  static async open(
    path: string,
    identity: LinesIdentity,
    words: LinesWords,
    keep: (line: Record<string, unknown>) => boolean,
  ): Promise<LinesFile> {
    const header = `${JSON.stringify(identity)}\n`;
    let file: FileHandle | undefined;
    try {
      file = await open(path, 'a+');
      const { size } = await file.stat();
      if (size > MAX_BYTES)
        throw invalid(`The ${words.name} ${path} has ${size} bytes, expected at most ${MAX_BYTES}.`);
      const text = await readFile(file, 'utf8');
      const whole = text.slice(0, text.lastIndexOf('\n') + 1);
      // Only what such a run began to write may be dropped: the file could be anything.
      if (whole === '' && !header.startsWith(text)) throw otherKind(path, identity, words);
      if (whole !== '') readLines(whole, path, identity, words, keep);
      await file.truncate(Buffer.byteLength(whole));
      if (whole === '') await file.appendFile(header);
      return new LinesFile(file, path, words);
    } catch (error) {
      await file?.close();
      if (error instanceof CqilError) throw error;
      throw failed(`The ${words.name} ${path} cannot be used`, error);
    }
  }

  /** Appends a value. Rejects with FILE_NOT_FOUND when it cannot be written, for example because the disk is full. */
  async append(value: unknown): Promise<void> {
    try {
      await this.#file.appendFile(`${JSON.stringify(value)}\n`);
    } catch (error) {
      throw failed(`The ${this.#words.name} ${this.#path} cannot be written`, error);
    }
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

function readLines(
  text: string,
  path: string,
  identity: LinesIdentity,
  words: LinesWords,
  keep: (line: Record<string, unknown>) => boolean,
): void {
  const [first, ...lines] = text.split('\n').slice(0, -1);
  const found = parse(first!);
  if (found.cqil !== identity.cqil) throw otherKind(path, identity, words);
  for (const [name, expected] of Object.entries(identity)) {
    const [was, is] = [JSON.stringify(found[name]), JSON.stringify(expected)];
    if (was !== is)
      throw invalid(
        `The ${words.name} ${path} ${words.has} ${name} ${was ?? 'missing'}; expected ${is}, as in this ${words.user}, or another file.`,
      );
  }
  for (const [i, line] of lines.entries()) {
    if (!keep(parse(line)))
      throw invalid(`Line ${i + 2} of the ${words.name} ${path} is damaged; expected ${words.line}.`);
  }
}

function otherKind(path: string, { cqil }: LinesIdentity, { isNone }: LinesWords): CqilError {
  return invalid(`The file ${path} ${isNone}; expected one that cqil ${cqil} wrote, or none.`);
}

function invalid(message: string): CqilError {
  return new CqilError('INVALID_ARGUMENT', message);
}

function failed(what: string, cause: unknown): CqilError {
  return new CqilError('FILE_NOT_FOUND', `${what}: ${(cause as Error).message}.`, { cause });
}

function parse(line: string): Record<string, unknown> {
  try {
    return Object(JSON.parse(line)) as Record<string, unknown>;
  } catch {
    return {};
  }
}
