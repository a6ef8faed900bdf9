import { randomInt } from 'node:crypto';
import { Option, type Command } from 'commander';
import { CqilError } from '../errors.js';
import type { GenerateOptions, GenerationResult } from '../generate/generate.js';
import type { Model } from '../model/model.js';
import { pick } from '../util/pick.js';
import { printJson, readStdin, type Io } from './io.js';
import { openModel } from './open_model.js';
import {
  addJsonOption,
  addModelArgument,
  addPlacementOptions,
  decimal,
  ESCAPES_HELP,
  integer,
  integerList,
  PLAN_HELP,
  planText,
  repeatableUnescaped,
  type PlacementOptions,
} from './options.js';
import { bypassModeOption, type PlanOptions } from './plan_option.js';
import { planForJson } from './plan_value.js';

interface Options extends PlacementOptions, PlanOptions {
  prompt?: string;
  tokenIds?: number[];
  chat?: boolean;
  parseSpecialTokens?: boolean;
  maxTokens: number;
  context?: number;
  plan?: string;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  frequencyPenalty?: number;
  presencePenalty?: number;
  seed?: number;
  stop?: string[];
  logprobs?: number;
  json?: boolean;
}

/** Options that are given to `Model.generate` as they are. */
const SETTINGS = [
  'maxTokens',
  'temperature',
  'topK',
  'topP',
  'minP',
  'repetitionPenalty',
  'frequencyPenalty',
  'presencePenalty',
  'stop',
  'logprobs',
  'parseSpecialTokens',
] as const;

export function addGenerate(program: Command, io: Io): void {
  const command = program.command('generate').description('continue a prompt');
  addModelArgument(command)
    .option('-p, --prompt <text>', 'what to continue; - reads it from stdin')
    .addOption(
      new Option('--token-ids <ids>', 'the prompt as token ids, such as 1,15043')
        .argParser(integerList)
        .conflicts('prompt'),
    )
    .addOption(
      new Option('--chat', "put the prompt into the model's chat template as a user message").conflicts('tokenIds'),
    )
    .addOption(
      new Option(
        '--parse-special-tokens',
        'read control tokens in the prompt, such as <|im_end|>, as tokens, not as plain text',
      ).conflicts('tokenIds'),
    )
    .option('-n, --max-tokens <n>', 'tokens to generate at most', integer(1, 1 << 24), 128)
    .option('--plan <plan>', PLAN_HELP, planText)
    .addOption(bypassModeOption())
    .option(
      '--context <n>',
      "positions to make room for at most (default: the model's context length)",
      integer(2, 1 << 24),
    );
  addSamplingOptions(command)
    .option('--stop <text>', `end before this text; ${ESCAPES_HELP}; may be given several times`, repeatableUnescaped)
    .option('--logprobs <n>', 'with --json: the log-probability of each token and of the n likeliest', integer(0, 100));
  addJsonOption(addPlacementOptions(command)).action((path: string | undefined, options: Options) =>
    generate(path, options, io),
  );
}

function addSamplingOptions(command: Command): Command {
  return command
    .option('--temperature <t>', 'randomness; 0 always takes the likeliest token (default: 0.8)', decimal(0, 100))
    .option('--top-k <n>', 'choose among the n likeliest tokens; 0: all (default: 40)', integer(0, 1 << 24))
    .option(
      '--top-p <p>',
      'choose among the likeliest tokens that reach this probability (default: 0.95)',
      decimal(0, 1),
    )
    .option(
      '--min-p <p>',
      'choose among tokens at least this likely, relative to the likeliest (default: 0)',
      decimal(0, 1),
    )
    .option('--repetition-penalty <r>', 'make recent tokens less likely (default: 1, none)', decimal(0.01, 100))
    .option('--frequency-penalty <f>', 'subtracted per earlier use of a token (default: 0)', decimal(-100, 100))
    .option('--presence-penalty <f>', 'subtracted once a token was used (default: 0)', decimal(-100, 100))
    .option(
      '--seed <n>',
      'the same seed gives the same text (default: a random one)',
      integer(0, Number.MAX_SAFE_INTEGER),
    );
}

async function generate(path: string | undefined, options: Options, io: Io): Promise<void> {
  if (options.prompt === undefined && !options.tokenIds) {
    throw new CqilError(
      'INVALID_ARGUMENT',
      'There is no prompt: give --prompt TEXT, --prompt - to read stdin, or --token-ids.',
    );
  }
  const text = options.prompt === '-' ? await readStdin(io) : options.prompt;
  if (text === '')
    io.err(`The prompt is empty${options.prompt === '-' ? ': nothing came on stdin' : ''}; the text begins anew.\n`);
  const started = performance.now();
  await using model = await openModel(path, options, io);
  const loadMs = performance.now() - started;
  // Drawn here rather than left to the sampler, so that an interrupted run can be repeated too.
  const seed = options.seed ?? randomInt(2 ** 32);
  const settings: GenerateOptions = { ...pick(options, SETTINGS), seed, signal: io.signal };
  const output = await collect(
    model,
    await promptOf(model, text, options, io),
    settings,
    options.context,
    options.json ? undefined : io,
  );
  if (options.json) {
    const { prefillMs, decodeMs, prefillTokensPerSecond, decodeTokensPerSecond, timeToFirstTokenMs } =
      output.result?.timings ?? {};
    printJson(io, {
      text: output.text,
      tokens: output.tokens,
      promptTokens: output.result?.usage.promptTokens,
      finishReason: output.result?.finishReason ?? 'aborted',
      plan: planForJson(model.plan),
      seed,
      logprobs: output.logprobs,
      timings: { loadMs, prefillMs, decodeMs, prefillTokensPerSecond, decodeTokensPerSecond, timeToFirstTokenMs },
    });
  } else {
    io.out('\n');
    io.err(`${output.result ? statistics(output.result, loadMs) : 'interrupted'}\n`);
  }
}

async function promptOf(
  { tokenizer }: Model,
  text: string | undefined,
  { tokenIds, chat, parseSpecialTokens }: Options,
  { signal }: Io,
): Promise<string | number[]> {
  if (text === undefined) return tokenIds!;
  return chat ? tokenizer.encodeChatSliced([{ role: 'user', content: text }], { parseSpecialTokens, signal }) : text;
}

interface Output {
  text: string;
  tokens: number[];
  logprobs: unknown[] | undefined;
  /** Absent when generation was interrupted. */
  result: GenerationResult | undefined;
}

/** Generates to the end or to an interrupt, writing text as it comes when there is somewhere to write it. */
async function collect(
  model: Model,
  prompt: string | number[],
  settings: GenerateOptions,
  context: number | undefined,
  io: Io | undefined,
): Promise<Output> {
  const output: Output = {
    text: '',
    tokens: [],
    logprobs: settings.logprobs === undefined ? undefined : [],
    result: undefined,
  };
  try {
    const generation = model.generate(prompt, settings);
    for await (const { text, token, logprob, alternatives } of generation) {
      output.text += text;
      output.tokens.push(token);
      output.logprobs?.push({ token, logprob, alternatives });
      io?.out(text);
    }
    output.result = await generation;
  } catch (error) {
    if (!(error instanceof CqilError)) throw error;
    if (error.code === 'CONTEXT_OVERFLOW' && context !== undefined)
      throw new CqilError(
        'CONTEXT_OVERFLOW',
        `The prompt leaves no room in --context ${context}; expected at most ${context - 1} tokens and one after them.`,
        { cause: error },
      );
    if (error.code !== 'ABORTED') throw error;
  }
  return output;
}

function statistics({ usage, finishReason, timings }: GenerationResult, loadMs: number): string {
  const rate = (tokens: number, ms: number, perSecond: number): string =>
    `${tokens} in ${ms.toFixed(0)} ms (${perSecond.toFixed(1)}/s)`;
  return [
    `loaded in ${loadMs.toFixed(0)} ms`,
    `prompt tokens ${rate(usage.promptTokens, timings.prefillMs, timings.prefillTokensPerSecond)}`,
    `generated tokens ${rate(usage.completionTokens, timings.decodeMs, timings.decodeTokensPerSecond)}`,
    `ended by ${finishReason}`,
  ].join(' | ');
}
