import { Command, CommanderError } from 'commander';
import { CqilError, type ErrorCode } from '../errors.js';
import { printJson, type Io } from './io.js';
import { packageVersion } from './version.js';

const EXIT_DONE = 0;
const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
/** 128 + SIGINT, as shells report it. */
export const EXIT_INTERRUPTED = 130;

/** Each verb's file is loaded when it is used: together they take longer to load than Node.js to start. */
const VERBS: Record<string, () => Promise<(program: Command, io: Io) => void>> = {
  generate: async () => (await import('./generate.js')).addGenerate,
  perplexity: async () => (await import('./perplexity.js')).addPerplexity,
  eval: async () => (await import('./eval.js')).addEval,
  inspect: async () => (await import('./inspect.js')).addInspect,
  plan: async () => (await import('./plan.js')).addPlan,
  bench: async () => (await import('./bench.js')).addBench,
  report: async () => (await import('./report.js')).addReport,
  doctor: async () => (await import('./doctor.js')).addDoctor,
  demo: async () => (await import('./demo.js')).addDemo,
};

/**
 * Runs one command line (without the program's name) and returns its exit code. Never throws and never ends the
 * process.
 */
export async function runCli(args: string[], outer: Io): Promise<number> {
  const state: State = { wrote: false, json: undefined };
  const out = (text: string): void => {
    state.wrote = true;
    outer.out(text);
  };
  const io = { ...outer, out };
  try {
    const program = await createProgram(args[0], io);
    program.hook('preAction', (_, command) => {
      state.json = command.opts<{ json?: boolean }>().json ?? false;
    });
    const [verb, ...words] = args;
    if (verb === 'help' && words.length > 0 && words.every((word) => !word.startsWith('-'))) helpOn(program, words);
    await program.parseAsync(args, { from: 'user' });
    return io.signal.aborted ? EXIT_INTERRUPTED : EXIT_DONE;
  } catch (error) {
    const { exitCode, code, message } = report(error, io);
    // Where the command line itself is wrong, commander may not have come as far as the option.
    if (code !== undefined && !state.wrote && (state.json ?? args.includes('--json')))
      printJson(io, { error: { code, message } });
    return exitCode;
  }
}

interface State {
  /** Whether anything went to stdout: a document is never followed by another. */
  wrote: boolean;
  /** Whether the verb was asked for JSON; undefined before its options are known. */
  json: boolean | undefined;
}

interface Failure {
  exitCode: number;
  /** Undefined where nothing failed, or the user interrupted. */
  code?: ErrorCode;
  message?: string;
}

/** With the verb that comes first, or with all of them where help is wanted, or a verb that there is not. */
async function createProgram(first: string | undefined, io: Io): Promise<Command> {
  const program = new Command('cqil')
    .description(
      'Runs LLaMA-family language models; a plan lets adjacent layers share one input and run at the same time.',
    )
    .version(packageVersion())
    // An option belongs to the verb it stands after: verbs and their subcommands share names.
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.out(text),
      writeErr: (text) => io.err(text),
      outputError: (text, write) => write(`cqil: ${oneLine(text.replace(/^error: /, ''))}\n`),
    })
    .addHelpText(
      'after',
      '\nData goes to stdout, progress to stderr. Exit code 0: done, 1: failed, 2: wrong usage, 130: interrupted.',
    );
  const names = first !== undefined && Object.hasOwn(VERBS, first) ? [first] : Object.keys(VERBS);
  for (const name of names) (await VERBS[name]!())(program, io);
  return program;
}

/**
 * Prints the help of a nested command, such as `plan search`; commander's own `help` looks at the first word only.
 * Always throws.
 */
function helpOn(program: Command, words: readonly string[]): never {
  let command = program;
  for (const word of words) {
    const next = command.commands.find((known) => known.name() === word);
    if (!next)
      return command.error(
        `error: unknown command '${word}'; ${command.name()} has ` +
          `${command.commands.map((known) => known.name()).join(', ') || 'none'}`,
      );
    command = next;
  }
  return command.help();
}

/** Says what went wrong in one line on stderr, unless commander has said it already. */
function report(error: unknown, io: Io): Failure {
  if (error instanceof CommanderError)
    return error.exitCode === 0
      ? { exitCode: EXIT_DONE }
      : { exitCode: EXIT_USAGE, code: 'INVALID_ARGUMENT', message: oneLine(error.message.replace(/^error: /, '')) };
  const code = error instanceof CqilError ? error.code : 'INTERNAL';
  if (code === 'ABORTED' && io.signal.aborted) return { exitCode: EXIT_INTERRUPTED };
  const message = oneLine(error instanceof Error ? error.message : String(error));
  io.err(`cqil: ${message} (${code})\n`);
  return { exitCode: code === 'INVALID_ARGUMENT' ? EXIT_USAGE : EXIT_FAILED, code, message };
}

function oneLine(text: string): string {
  return text.trim().replace(/\s*\n\s*/g, ' ');
}
