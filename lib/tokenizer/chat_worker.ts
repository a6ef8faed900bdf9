// Renders one chat in a thread of its own, for chat_texts.ts.
import { parentPort, workerData } from 'node:worker_threads';
import { CqilError } from '../errors.js';
import { ChatTemplate } from './chat_template.js';
import { chatTexts, type ChatAnswer, type ChatRequest } from './chat_texts.js';
import { allOf } from './slices.js';
import { ControlTexts } from './user_text.js';

function answer({ sources, names, controls, chat }: ChatRequest): ChatAnswer {
  try {
    const template = new ChatTemplate(sources, names);
    return { texts: allOf(chatTexts(template, controls && new ControlTexts(controls), chat)) };
  } catch (error) {
    const message = error instanceof Error ? error.message : 'The chat cannot be rendered.';
    return { error: { code: error instanceof CqilError ? error.code : 'INTERNAL', message } };
  }
}

parentPort!.postMessage(answer(workerData as ChatRequest));
