import { CqilError } from '../errors.js';
import { resolvePlan, type Plan } from '../plan/plan.js';
import { readText } from './text_file.js';

/** A plan of a search's front, as its JSON document has it. */
export interface SearchResultPlan {
  plan: Plan;
  phases: number;
  method: string;
  kl: number;
  klStandardError: number;
  perplexity: number;
}

/** What `cqil plan search --json` printed, as far as others use it. */
export interface SearchResult {
  /** The model's fingerprint. */
  model: string;
  /** The text it measured on, and how many tokens of it were held out. */
  text: string;
  sha256: string;
  tokens: number;
  seed: number;
  /** What it chose for its goal. */
  chosen: Plan;
  front: SearchResultPlan[];
}

const MOST_PLANS = 1024;
const SHORTHAND = /^(sequential|P\d+(-[DSE]\d+)*)$/;

/** Reads a search's document. Throws INVALID_ARGUMENT for anything else, or FILE_NOT_FOUND. */
export async function readSearchResult(file: string, layers: number): Promise<SearchResult> {
  const refuse = (problem: string): never => {
    throw new CqilError(
      'INVALID_ARGUMENT',
      `The file ${file} ${problem}; expected what cqil plan search --json prints.`,
    );
  };
  const number = (value: unknown, name: string): number =>
    typeof value === 'number' && Number.isFinite(value) && value >= 0 ? value : refuse(`has no number as ${name}`);
  const string = (value: unknown, name: string): string =>
    typeof value === 'string' ? value : refuse(`has no text as ${name}`);
  const plan = (value: unknown, name: string): Plan => {
    // A plan written as text is shorthand here: a document must not make us read other files.
    if (typeof value === 'string' ? !SHORTHAND.test(value) : typeof value !== 'object' || value === null)
      refuse(`has no plan as ${name}`);
    return resolvePlan(value as string | Record<string, unknown>, layers);
  };
  const text = await readText(file);
  let document: Record<string, unknown>;
  try {
    document = Object(JSON.parse(text)) as Record<string, unknown>;
  } catch {
    return refuse('is not JSON');
  }
  const [model, data, front] = [Object(document.model), Object(document.text), document.front] as [
    Record<string, unknown>,
    Record<string, unknown>,
    unknown,
  ];
  if (!Array.isArray(front) || front.length > MOST_PLANS) return refuse('has no front');
  return {
    model: string(model.fingerprint, 'model.fingerprint'),
    text: string(data.file, 'text.file'),
    sha256: string(data.sha256, 'text.sha256'),
    tokens: number(data.heldOutTokens, 'text.heldOutTokens'),
    seed: number(document.seed, 'seed'),
    chosen: plan(document.plan, 'plan'),
    front: front.map((value: unknown, i) => {
      const point = Object(value) as Record<string, unknown>;
      return {
        plan: plan(point.plan, `front[${i}].plan`),
        phases: number(point.phases, `front[${i}].phases`),
        method: string(point.method, `front[${i}].method`),
        kl: number(point.kl, `front[${i}].kl`),
        klStandardError: number(point.klStandardError, `front[${i}].klStandardError`),
        perplexity: number(point.perplexity, `front[${i}].perplexity`),
      };
    }),
  };
}
