import { setImmediate } from 'node:timers/promises';
import type { GenerationModel, GenerationSession } from '../../lib/generate/generation_loop.js';
import { resolvePlan, type Plan } from '../../lib/plan/plan.js';
import { CqilError } from '../../lib/errors.js';
import type { Shortlist } from '../../lib/engine/shortlist.js';
import type { ShortlistOptions } from '../../lib/session/arguments.js';
import type { HeldSession } from '../../lib/session/session.js';
import { shortlistOf } from './shortlist_of.js';

/** Pieces of the vocabulary by id: 0 begins a text, 1 ends it, 2 to 5 are the UTF-8 bytes of an emoji, then words. */
const PIECES = [
  '<s>',
  '</s>',
  0xf0,
  0x9f,
  0x98,
  0x80,
  'Once',
  ' upon',
  ' a',
  ' time',
  ', there',
  ' was',
  '\n\n',
  'User:',
  ' U',
];
export const EMOJI = [2, 3, 4, 5];
export const word = (piece: string): number => PIECES.indexOf(piece);

/** A model whose continuation is written down: what generation makes of it can be said exactly. */
export class ScriptedModel implements GenerationModel {
  readonly vocabSize = PIECES.length;
  contextLength = 64;
  stopsAtStage = false;
  /** Stages of a forward: each of them a layer. */
  stages = 4;
  opened = 0;
  closed = 0;
  forwards = 0;
  /** Called before each forward with how many there were; may throw. */
  onForward: (count: number) => void | Promise<void> = () => undefined;
  /** Whether the next token was to be begun ahead, for each shortlist that was asked for. */
  readonly ahead: Array<boolean | undefined> = [];
  readonly #script: number[];

  constructor(script: number[]) {
    this.#script = script;
  }

  eosTokenIds = [1];

  readonly tokenizer = {
    bosTokenId: 0,
    isSpecial: (id: number) => id < 2,
    idToToken: (id: number) => String(PIECES[id]),
    encodeSliced: async (text: string, { addSpecialTokens = true } = {}) => [
      ...(addSpecialTokens ? [0] : []),
      ...PIECES.flatMap((piece, id) => (typeof piece === 'string' && text.includes(piece) ? [id] : [])),
    ],
    detokenizer: ({ continues = false } = {}) => {
      const decoder = new TextDecoder();
      let atStart = !continues;
      const text = (id: number): string => {
        const piece = PIECES[id]!;
        return id < 2
          ? ''
          : decoder.decode(typeof piece === 'number' ? Uint8Array.of(piece) : new TextEncoder().encode(piece), {
              stream: true,
            });
      };
      return {
        push(id: number) {
          const shown = atStart ? text(id).replace(/^ /, '') : text(id);
          atStart = false;
          return shown;
        },
        flush: () => decoder.decode(),
      };
    },
  };

  requireTokenizer(): unknown {
    return this.tokenizer;
  }

  createSession({ contextLength }: { contextLength: number }): ScriptedSession {
    this.opened++;
    return new ScriptedSession(this, this.#script, contextLength);
  }
}

class ScriptedSession implements GenerationSession {
  readonly plan: Plan;
  position = 0;
  readonly seen: number[] = [];
  readonly contextLength: number;
  readonly #model: ScriptedModel;
  readonly #script: number[];
  #next = 0;

  constructor(model: ScriptedModel, script: number[], contextLength: number) {
    this.#model = model;
    this.#script = script;
    this.contextLength = contextLength;
    this.plan = resolvePlan('sequential', model.stages);
  }

  async prefill(ids: ArrayLike<number>, { signal }: { signal?: AbortSignal } = {}): Promise<Float32Array> {
    await this.#model.onForward(++this.#model.forwards);
    await setImmediate();
    if (signal?.aborted) throw new CqilError('ABORTED', 'The forward was cancelled.');
    this.seen.push(...Array.from(ids));
    this.position += ids.length;
    const logits = new Float32Array(PIECES.length);
    logits[this.#script[this.#next++ % this.#script.length]!] = 100;
    return logits;
  }

  async shortlist(ids: ArrayLike<number>, count: number, options: ShortlistOptions = {}): Promise<Shortlist> {
    this.#model.ahead.push(options.ahead);
    return shortlistOf(await this.prefill(ids, options), count);
  }

  hold(): HeldSession {
    const { plan, contextLength, seen } = this;
    const position = (): number => this.position;
    return {
      plan,
      contextLength,
      get position() {
        return position();
      },
      ids: seen,
      ready: Promise.resolve(),
      prefill: (ids, options) => this.prefill(ids, options),
      shortlist: (ids, count, options) => this.shortlist(ids, count, options),
      release: () => undefined,
    };
  }

  close(): void {
    this.#model.closed++;
  }
}
