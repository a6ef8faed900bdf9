import { LinesFile, type LinesIdentity, type LinesWords } from '../../util/lines_file.js';
import type { Quality } from './quality.js';

/** What measurements depend on besides the plan. */
export interface MeasurementIdentity extends LinesIdentity {
  cqil: 'plan search';
}

const WORDS: LinesWords = {
  name: 'file of measurements',
  isNone: 'holds no measurements',
  has: 'has',
  user: 'search',
  line: 'a plan and what it was measured to cost',
};
const FIELDS: ReadonlyArray<keyof Quality> = ['tokens', 'kl', 'klStandardError', 'perplexity', 'topAgreement'];

/** What plans were measured to cost, kept in a file of JSON lines that says of which model on which data. */
export class MeasurementFile {
  readonly #lines: LinesFile;
  readonly #known: ReadonlyMap<string, Quality>;

  private constructor(lines: LinesFile, known: ReadonlyMap<string, Quality>) {
    this.#lines = lines;
    this.#known = known;
  }

  /**
   * Opens a file, or makes it.
   *
   * @throws CqilError INVALID_ARGUMENT for a file of another model or other data, or of another kind; FILE_NOT_FOUND
   * for one that cannot be read or written.
   */
  static async open(path: string, identity: MeasurementIdentity): Promise<MeasurementFile> {
    const known = new Map<string, Quality>();
    const lines = await LinesFile.open(path, identity, WORDS, ({ part, plan, ...quality }) => {
      if (typeof part !== 'string' || typeof plan !== 'string') return false;
      if (!FIELDS.every((field) => typeof quality[field] === 'number')) return false;
      known.set(`${part} ${plan}`, quality as unknown as Quality);
      return true;
    });
    return new MeasurementFile(lines, known);
  }

  /** What a plan was measured to cost on a part of the text. */
  get(part: string, plan: string): Quality | undefined {
    return this.#known.get(`${part} ${plan}`);
  }

  async add(part: string, plan: string, quality: Quality): Promise<void> {
    await this.#lines.append({ part, plan, ...quality });
  }

  async close(): Promise<void> {
    await this.#lines.close();
  }
}
