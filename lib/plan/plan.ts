import path from 'node:path';
import { CqilError } from '../errors.js';
import { parseJson } from '../util/json.js';
import { absolutePath, isUrl, pathOf, type Location, type UrlLike } from '../util/location.js';
import { readArgument } from '../util/options.js';
import { isModelFolder, planFile, readPlanFile } from './plan_file.js';

/** What is computed: which layers share an input. Pure data; the file format is this object as JSON. */
export interface Plan {
  version: 1;
  /** Layers of the model the plan is for. */
  layers: number;
  /** Layer indices per group: consecutive, ascending, disjoint, at least two. Every other layer runs alone. */
  groups: number[][];
  /** Bypass distance D: how many earlier members of its group a layer's MLP sees the attention outputs of. */
  bypass: number;
  /**
   * Whether bypassed outputs stay out of the residual ("paper") or are added to it again ("official"). The same when D
   * = 0.
   */
  bypassMode: 'paper' | 'official';
  /** Folder of the PEFT LoRA adapter that belongs to this plan; in a plan file, relative to that file. */
  adapter?: string;
  /** What was measured when the plan was made. */
  evidence?: Record<string, unknown>;
}

/**
 * `sequential`, shorthand such as `P2-D0-S12-E30`, the path or `file:` URL of a JSON file, JSON text, a plan, or an
 * official config with `cqil_layers`.
 */
export type PlanInput = string | UrlLike | Record<string, unknown> | Plan;

/** More layers than any model of this family has; bounds what a plan without a model may ask for. */
const MAX_LAYERS = 1024;
const FIELDS = ['version', 'layers', 'groups', 'bypass', 'bypassMode', 'adapter', 'evidence'];
const FORMS = '"sequential", shorthand such as P2-D0-S12-E30, or the path of a JSON file';

/**
 * Makes a checked plan of any accepted form.
 *
 * Shorthand: P is the group size, S the first layer (inclusive), E the end (exclusive), D the bypass distance (0 when
 * left out), in any order and case, also at the end of a published name (`LLaMA-7B-S12-E30-P2-D0`). The last group is
 * shortened to end at E, and a single layer left over runs alone.
 *
 * With D ≥ 1, a published name and an official config mean bypass mode "official", because adapters published with them
 * were trained in it; letters alone mean "paper". `-official` or `-paper` at the end overrides that. When a published
 * name is also the path of a folder with a config.json, that file is read instead.
 *
 * @param layers the model's number of layers; left out, the plan itself must say it.
 * @throws CqilError INVALID_PLAN for a malformed or misfitting plan; FILE_NOT_FOUND for a path that cannot be read;
 * INVALID_ARGUMENT for a URL that is not a file's.
 */
export function resolvePlan(input: PlanInput | undefined, layers?: number): Plan {
  if (layers !== undefined) checkLayers(layers, 'The model has');
  if (input === undefined) return planOf(layers, [], 0);
  if (isUrl(input)) return planInFile(pathOf(input, 'The plan'), layers);
  if (typeof input !== 'string') return planFromObject(input, layers, 'The plan');

  const text = input.trim();
  if (text.toLowerCase() === 'sequential') return planOf(layers, [], 0);
  if (text.startsWith('{')) return planFromObject(parseJson(text, 'The plan', 'INVALID_PLAN'), layers, 'The plan');
  const shorthand = readShorthand(text);
  if (shorthand && !(shorthand.published && isModelFolder(text))) return planFromShorthand(text, shorthand, layers);
  return planInFile(text === '' ? text : pathOf(text, 'The plan'), layers);
}

/**
 * Checks a plan given as text as far as that goes without a model and without reading a file. Throws INVALID_PLAN for
 * what is malformed, which no model would fit.
 */
export function checkPlanText(input: string): void {
  const text = input.trim();
  if (text.toLowerCase() === 'sequential') return;
  const shorthand = readShorthand(text);
  // One layer more than any letter may name.
  if (shorthand) planFromShorthand(text, shorthand, MAX_LAYERS + 1);
  else if (text.startsWith('{')) parseJson(text, 'The plan', 'INVALID_PLAN');
  else if (text === '' || (!/^[a-z][a-z0-9+.-]+:\/\//i.test(text) && planFile(text) === undefined)) throw noPlan(text);
}

function noPlan(text: string): CqilError {
  return new CqilError('INVALID_PLAN', `The plan ${quote(text)} is none of ${FORMS}.`);
}

function planInFile(location: string, layers: number | undefined): Plan {
  const file = planFile(location);
  if (file === undefined) throw noPlan(location);
  const plan = planFromObject(readPlanFile(file), layers, `The plan file ${file}`);
  if (plan.adapter !== undefined) plan.adapter = absolutePath(plan.adapter, 'The adapter', path.dirname(file));
  return plan;
}

/** Whether a text is the name of a published model and so implies the bypass mode of its plan. */
export function isPublishedName(text: string): boolean {
  const shorthand = readShorthand(text.trim());
  return shorthand !== undefined && shorthand.published && shorthand.mode === undefined;
}

/**
 * A plan in another bypass mode. A plan without a bypass is returned as it is, because the modes do not differ for it.
 */
export function withBypassMode(plan: Plan, bypassMode: Plan['bypassMode']): Plan {
  return plan.bypass === 0 ? plan : { ...plan, bypassMode };
}

/**
 * The shorthand of a plan when it says everything about it, otherwise its JSON. `resolvePlan` reads both kinds back.
 * Throws INVALID_PLAN for what is no plan.
 */
export function formatPlan(plan: Plan): string {
  const checked = checkedPlan(plan);
  try {
    return planShorthand(checked) ?? JSON.stringify(checked);
  } catch (cause) {
    throw new CqilError(
      'INVALID_PLAN',
      `The plan's evidence cannot be written as JSON (${(cause as Error).message.split('\n')[0]}), expected plain ` +
        'values.',
      { cause },
    );
  }
}

/** A checked copy of a plan that a program may have made by hand. Throws INVALID_PLAN. */
export function checkedPlan(plan: Plan): Plan {
  return planFromObject(plan, undefined, 'The plan');
}

/** The shorthand of a plan, or undefined when shorthand cannot say all of it. */
export function planShorthand(plan: Plan): string | undefined {
  if (plan.adapter !== undefined || plan.evidence !== undefined) return undefined;
  if (plan.bypassMode !== 'paper' && plan.bypass === 0) return undefined;
  const first = plan.groups[0];
  if (!first) return plan.bypass === 0 ? 'sequential' : undefined;
  const size = first.length;
  const [start, end] = [first[0]!, plan.groups.at(-1)!.at(-1)! + 1];
  const spelled = evenGroups(size, start, end);
  const same =
    spelled.length === plan.groups.length &&
    spelled.every((group, i) => group.length === plan.groups[i]!.length && group[0] === plan.groups[i]![0]);
  return same
    ? `P${size}-D${plan.bypass}-S${start}-E${end}${plan.bypassMode === 'paper' ? '' : '-official'}`
    : undefined;
}

/** Whether a plan computes anything but the model as it was trained. */
export function isLossy(plan: Plan): boolean {
  return plan.groups.length > 0 || plan.adapter !== undefined;
}

/** Stages the plan has: groups, and layers that run alone. */
export function countStages(plan: Plan): number {
  return plan.groups.reduce((stages, group) => stages - (group.length - 1), plan.layers);
}

function planOf(
  layers: number | undefined,
  groups: number[][],
  bypass: number,
  bypassMode: Plan['bypassMode'] = 'paper',
): Plan {
  if (layers === undefined) {
    throw new CqilError(
      'INVALID_PLAN',
      'The plan does not say how many layers its model has: give the model or the number of layers.',
    );
  }
  // Bypass runs inside groups only, so a plan without groups is the ordinary model whatever its D.
  return { version: 1, layers, groups, bypass: groups.length > 0 ? bypass : 0, bypassMode };
}

/** Groups of `size` from `start` up to `end` (exclusive): the last one shortened, a single layer left over dropped. */
function evenGroups(size: number, start: number, end: number): number[][] {
  const groups: number[][] = [];
  for (let first = start; size > 1 && first + 1 < end; first += size) {
    groups.push(Array.from({ length: Math.min(size, end - first) }, (_, i) => first + i));
  }
  return groups;
}

interface Shorthand {
  /** The parts that consist of a letter and a number. */
  tokens: string[];
  /** Whether a model's name stands before these parts, as in the names of the authors' folders. */
  published: boolean;
  /** The bypass mode, when the shorthand spells it out. */
  mode?: Plan['bypassMode'];
}

/** Splits shorthand into its parts; undefined when the text is not shorthand. */
function readShorthand(text: string): Shorthand | undefined {
  if (text.length > 200 || /[\\/]/.test(text)) return undefined;
  const tokens = text.split('-');
  const last = tokens.at(-1)!.toLowerCase();
  const mode = last === 'official' || last === 'paper' ? last : undefined;
  if (mode) tokens.pop();
  const from = tokens.findLastIndex((token) => !/^[PDSE]\d+$/i.test(token)) + 1;
  const published = from > 0 && /[a-z]{2}/i.test(tokens[0]!);
  // Two tokens at least, so that a file called model-e2 stays a file.
  return tokens.length > 0 && (from === 0 || (published && tokens.length - from >= 2))
    ? { tokens: tokens.slice(from), published, mode }
    : undefined;
}

function planFromShorthand(
  text: string,
  { tokens, published, mode = published ? 'official' : 'paper' }: Shorthand,
  layers: number | undefined,
): Plan {
  const refuse = (problem: string): never => {
    throw new CqilError('INVALID_PLAN', `The plan ${quote(text)} ${problem}.`);
  };
  const values = new Map<string, number>();
  for (const token of tokens) {
    const letter = token[0]!.toUpperCase();
    const value = Number(token.slice(1));
    if (values.has(letter)) refuse(`gives ${letter} twice`);
    if (value > MAX_LAYERS) refuse(`has ${letter} ${token.slice(1, 20)}, expected at most ${MAX_LAYERS}`);
    values.set(letter, value);
  }
  const [size, bypass, start, end] = [values.get('P'), values.get('D') ?? 0, values.get('S'), values.get('E')];
  if (size === undefined) return refuse('has no P, the number of layers per group');
  if (size < 1) refuse('has P 0, expected at least 1');
  if (size === 1) return planOf(layers, [], 0);
  if (start === undefined || end === undefined)
    return refuse(`has no ${start === undefined ? 'S, the first layer' : 'E, the end'} of the grouped range`);
  if (start >= end) refuse(`has S ${start} and E ${end}, expected S < E because E is exclusive`);
  if (layers !== undefined && end > layers) refuse(`ends at layer ${end}, but the model has ${layers} layers`);
  if (layers !== undefined && bypass >= layers)
    refuse(`has bypass distance ${bypass}, but the model has ${layers} layers`);
  return withBypassMode(planOf(layers, evenGroups(size, start, end), bypass), mode);
}

function planFromObject(input: unknown, layers: number | undefined, where: string): Plan {
  return readArgument(where, () => readPlan(input, layers, where), 'INVALID_PLAN');
}

function readPlan(input: unknown, layers: number | undefined, where: string): Plan {
  const refuse = (problem: string): never => {
    throw new CqilError('INVALID_PLAN', `${where} ${problem}.`);
  };
  if (!isRecord(input)) return refuse(`is ${kindOf(input)}, expected an object with "groups" or "cqil_layers"`);
  if ('cqil_layers' in input && !('groups' in input)) return planFromOfficial(input, layers, where);
  if ('model_type' in input || 'architectures' in input)
    refuse('is a model config without "cqil_layers", so it holds no plan');
  for (const field of Object.keys(input)) {
    if (!FIELDS.includes(field)) refuse(`has the unknown field ${quote(field)}, expected ${FIELDS.join(', ')}`);
  }
  const { version = 1, bypass = 0, bypassMode = 'paper', adapter, evidence } = input;
  if (version !== 1) refuse(`has version ${show(version)}, expected 1`);
  const depth = depthOf(input.layers, layers, '"layers"', where);
  const { groups: listed } = input;
  if (!Array.isArray(listed))
    return refuse(
      `has ${listed === undefined ? 'no "groups"' : `"groups" ${show(listed)}`}, expected a list of lists of layer ` +
        'indices',
    );
  const groups = checkedGroups(listed, depth, 2, where);
  checkBypass(bypass, depth, '"bypass"', where);
  if (bypassMode !== 'paper' && bypassMode !== 'official')
    refuse(`has "bypassMode" ${show(bypassMode)}, expected "paper" or "official"`);
  if (adapter !== undefined && !isUrl(adapter) && (typeof adapter !== 'string' || adapter === ''))
    refuse(`has "adapter" ${show(adapter)}, expected the path of a folder`);
  if (evidence !== undefined && !isRecord(evidence)) refuse(`has "evidence" ${show(evidence)}, expected an object`);
  const plan = planOf(depth, groups, bypass as number, bypassMode as Plan['bypassMode']);
  if (adapter !== undefined)
    plan.adapter = pathOf(adapter as Location, `The adapter of ${where[0]!.toLowerCase()}${where.slice(1)}`);
  if (evidence !== undefined) plan.evidence = evidence as Record<string, unknown>;
  return plan;
}

/** Reads the fields the authors' training code adds to a model's config.json; all others belong to the model. */
function planFromOfficial(input: Record<string, unknown>, layers: number | undefined, where: string): Plan {
  const depth = depthOf(input.num_hidden_layers, layers, '"num_hidden_layers"', where);
  const listed = input.cqil_layers;
  if (!Array.isArray(listed))
    throw new CqilError(
      'INVALID_PLAN',
      `${where} has "cqil_layers" ${show(listed)}, expected a list of lists of layer indices.`,
    );
  const groups = checkedGroups(listed, depth, 1, where).filter((group) => group.length > 1);
  const bypass = input.d ?? 0;
  checkBypass(bypass, depth, '"d"', where);
  return planOf(depth, groups, bypass as number, (bypass as number) > 0 ? 'official' : 'paper');
}

function depthOf(stated: unknown, layers: number | undefined, field: string, where: string): number {
  if (stated === undefined) return planOf(layers, [], 0).layers;
  checkLayers(stated, `${where} says ${field} is for`);
  if (layers !== undefined && stated !== layers) {
    throw new CqilError(
      'INVALID_PLAN',
      `${where} is for a model of ${show(stated)} layers, but the model has ${layers}.`,
    );
  }
  return stated as number;
}

function checkLayers(layers: unknown, where: string): void {
  if (isIndex(layers) && layers >= 1 && layers <= MAX_LAYERS) return;
  throw new CqilError(
    'INVALID_PLAN',
    `${where} ${show(layers)} layers, expected a whole number from 1 to ${MAX_LAYERS}.`,
  );
}

function checkBypass(bypass: unknown, layers: number, field: string, where: string): void {
  if (isIndex(bypass) && bypass < layers) return;
  throw new CqilError(
    'INVALID_PLAN',
    `${where} has ${field} ${show(bypass)}, expected a whole number of layers from 0 to ${layers - 1}.`,
  );
}

/** A copy of groups that are lists of consecutive ascending layer indices, in order and disjoint. */
function checkedGroups(given: unknown[], layers: number, minSize: number, where: string): number[][] {
  let next = 0;
  return copied(given, layers, `${where} has`, 'groups').map((list, index) => {
    const refuse = (problem: string): never => {
      throw new CqilError('INVALID_PLAN', `${where} has group ${index + 1} ${show(list)}, ${problem}.`);
    };
    if (!Array.isArray(list)) return refuse('expected a list of layer indices');
    const group = copied(list, layers, `${where} has group ${index + 1} of`, 'layers');
    if (group.length < minSize) refuse(`expected at least ${minSize === 1 ? 'one layer' : 'two layers'}`);
    const members = group.map((layer, i) => {
      if (!isIndex(layer)) return refuse(`but ${show(layer)} is no layer index`);
      if (layer >= layers) refuse(`but the last layer of ${layers} is ${layers - 1}`);
      if (i > 0 && layer !== (group[i - 1] as number) + 1)
        refuse(`but ${layer} does not follow ${group[i - 1]}: layers of a group are consecutive and ascending`);
      if (i === 0 && layer < next)
        refuse(`but the groups before it reach layer ${next - 1}: groups are ascending and share no layer`);
      return layer;
    });
    next = members.at(-1)! + 1;
    return members;
  });
}

/** The elements of a list, each read once; where it has a hole, undefined. No plan has a longer one than its layers. */
function copied(list: readonly unknown[], layers: number, found: string, what: string): unknown[] {
  const { length } = list;
  if (length <= layers) return Array.from({ length }, (_, i) => list[i]);
  throw new CqilError('INVALID_PLAN', `${found} ${length} ${what}, expected at most the ${layers} of the model.`);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isIndex(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function kindOf(value: unknown): string {
  return value === null ? 'null' : Array.isArray(value) ? 'a list' : `of type ${typeof value}`;
}

function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}

/** A found value for a message; numbers as JavaScript writes them (JSON has no NaN), everything else as short JSON. */
function show(value: unknown): string {
  if (typeof value !== 'object' && typeof value !== 'string') return String(value);
  try {
    const json = Array.isArray(value) && value.length > 40 ? `a list of ${value.length}` : JSON.stringify(value);
    return json.length > 80 ? `${json.slice(0, 80)}…` : json;
  } catch {
    return `of type ${typeof value}`; // cyclic, holds a bigint, or cannot be read
  }
}
