import { existsSync } from 'node:fs';
import path from 'node:path';
import type { Worker } from 'node:worker_threads';
import { orAborted, throwIfAborted } from '../util/abort.js';
import { CqilError } from '../errors.js';
import { Pace } from '../util/pace.js';
import { ChatTemplate, type Chat } from './chat_template.js';
import { invalidTokenizer } from './invalid.js';
import { TimeError } from './jinja/budget.js';
import { guardUserText, renderUserText, renderWithoutTexts, type ControlTexts } from './user_text.js';

/** The texts that a chat is encoded from. */
export interface ChatTexts {
  /** What the template renders. */
  text: string;
  /** A string in `text` that keeps the control tokens' texts in messages from being found, where there are such. */
  guard?: string;
  /** What the template renders for messages that say next to nothing, to compare control tokens with. */
  own?: string;
}

/** What texts are made of, as it is sent to a worker. `controls`: texts of control tokens; absent: all may be read. */
export interface ChatRequest {
  sources: ReadonlyMap<string, string>;
  names: Readonly<Record<string, string | string[]>>;
  controls?: readonly string[];
  chat: Chat;
}

/** What the worker answers. */
export type ChatAnswer = { texts: ChatTexts } | { error: { code: CqilError['code']; message: string } };

// A rendering cannot pause. One of usual messages takes 1 ms. What takes more than this is done by a worker, which
// takes 40 ms to start.
const HERE_MS = 20;
// Chats that are larger than this go to the worker at once: reading their values takes several milliseconds by itself.
const HERE_VALUES = 1 << 12;
const HERE_CHARACTERS = 1 << 19;
// Far above what the limits of templates allow.
const WORKER_MB = 1024;
const WORKER = path.join(__dirname, 'chat_worker.js');

/** Renders a chat, in slices that are short where each rendering is. Throws as `ChatTemplate.render` does. */
export function* chatTexts(
  template: ChatTemplate,
  controls: ControlTexts | undefined,
  chat: Chat,
  maxMs?: number,
): Generator<void, ChatTexts> {
  const rendering = template.render(chat, maxMs);
  if (!controls) return { text: rendering.text };
  const user = yield* renderUserText(rendering, controls);
  const guarded = yield* guardUserText(user, controls);
  const own = yield* renderWithoutTexts(rendering);
  return { text: guarded?.text ?? user.text, guard: guarded?.guard, own };
}

/**
 * Does the same beside the event loop: a chat whose renderings take long is rendered by a worker. Where a worker cannot
 * load its file, as in a bundle, it is rendered here. Rejects also with ABORTED.
 */
export async function chatTextsAside(
  template: ChatTemplate,
  controls: ControlTexts | undefined,
  chat: Chat,
  signal?: AbortSignal,
): Promise<ChatTexts> {
  const pace = new Pace(signal);
  const here = (maxMs?: number): Promise<ChatTexts> => pace.through(chatTexts(template, controls, chat, maxMs));
  if (!existsSync(WORKER)) return here();
  const { values, characters } = chat.size;
  if (values <= HERE_VALUES && characters <= HERE_CHARACTERS) {
    try {
      return await here(HERE_MS);
    } catch (error) {
      if (!(error instanceof TimeError)) throw error;
    }
  }
  const { sources, names } = template;
  return (await askWorker({ sources, names, controls: controls?.texts, chat }, signal)) ?? here();
}

/** Undefined where the worker cannot load its file. */
async function askWorker(request: ChatRequest, signal: AbortSignal | undefined): Promise<ChatTexts | undefined> {
  throwIfAborted(signal);
  const { Worker } = await import('node:worker_threads');
  const worker = new Worker(WORKER, {
    workerData: request,
    execArgv: [],
    resourceLimits: { maxOldGenerationSizeMb: WORKER_MB },
  });
  try {
    const answer = await (signal ? orAborted(answerOf(worker), signal) : answerOf(worker));
    if (answer === undefined || 'texts' in answer) return answer?.texts;
    throw new CqilError(answer.error.code, answer.error.message);
  } finally {
    void worker.terminate();
  }
}

const NOT_LOADED = ['MODULE_NOT_FOUND', 'ERR_MODULE_NOT_FOUND', 'ERR_WORKER_PATH'];

function answerOf(worker: Worker): Promise<ChatAnswer | undefined> {
  const failed = (reason: string, cause?: unknown): CqilError =>
    new CqilError('INTERNAL', `The thread that renders chats ended before its answer: ${reason}.`, { cause });
  return new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', (cause: NodeJS.ErrnoException) => {
      if (cause.code === 'ERR_WORKER_OUT_OF_MEMORY')
        reject(
          invalidTokenizer(`The chat template goes beyond its limits: it takes more than ${WORKER_MB} MB.`, cause),
        );
      else if (NOT_LOADED.includes(cause.code!)) resolve(undefined);
      else reject(failed(cause.message, cause));
    });
    worker.once('exit', (code) => reject(failed(`code ${code}`)));
  });
}
