const PROMPT = 64,
  CONTEXT = 512;

/** A text that goes on token by token at temperature 0, with decoding ahead, and begins again where its context is full. */
export class Generation {
  #session;
  #list;

  constructor({ plan, model }) {
    this.#session = model.createSession({ plan, contextLength: CONTEXT });
  }

  /** The prompt, and its first token. */
  async begin() {
    this.#session.truncate(0);
    this.#list = await this.#session.shortlist(new Int32Array(PROMPT).fill(1), 1, { ahead: false });
  }

  /** The next token; `more`: the one after it may be computed ahead. */
  async next(more) {
    if (this.#list === undefined || this.#session.position === CONTEXT) await this.begin();
    const ahead = more && this.#session.position + 1 < CONTEXT;
    this.#list = await this.#session.shortlist([this.#list.ids[0]], 1, { ahead });
  }

  /** How many tokens come in `milliseconds`. */
  async tokens(milliseconds) {
    await this.begin();
    const began = performance.now();
    let count = 0;
    for (; performance.now() - began < milliseconds; count++) await this.next(true);
    await this.next(false);
    return count;
  }

  /** Tokens per second of the next `count` tokens, with no prompt between them: at most 448. */
  async rate(count) {
    if (this.#session.position + count > CONTEXT) await this.begin();
    const began = performance.now();
    for (let done = 1; done <= count; done++) await this.next(done < count);
    return (1000 * count) / (performance.now() - began);
  }

  close() {
    this.#session.close();
  }
}
