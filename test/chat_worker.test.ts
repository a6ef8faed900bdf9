import { existsSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { loadTokenizer as load } from '../lib/tokenizer/index.js';
import { countTurns } from './support/event_loop.js';
import { vocabularySource } from './support/vocabularies.js';

// The worker is a file of its own, which exists only once it is built. The sources render everything here.
const built = path.join(__dirname, '../dist/tokenizer');
const { loadTokenizer } = require(path.join(built, 'index.js')) as { loadTokenizer: typeof load };

const MESSAGES = Array.from({ length: 600 }, (_, i) => ({
  role: i % 2 ? 'assistant' : 'user',
  content: `Message ${i}, with <|im_start|> in it.`,
}));
// It looks at all messages before each, which takes some hundred milliseconds.
const SLOW = `{% for m in messages %}{{ messages[:loop.index]|selectattr('role', 'equalto', 'user')|list|length }}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}`;

function withTemplate(chatTemplate: string) {
  return loadTokenizer({ ...vocabularySource('qwen2'), chatTemplate });
}

describe('a template that takes long', () => {
  it('was built', () => {
    expect(existsSync(path.join(built, 'chat_worker.js'))).toBe(true);
  });

  it('is rendered beside the event loop, to the same ids', async () => {
    const tokenizer = await withTemplate(SLOW);
    const here = tokenizer.encodeChat(MESSAGES);
    const { result, turns } = await countTurns(() => tokenizer.encodeChatSliced(MESSAGES));
    expect(result).toEqual(here);
    expect(turns).toBeGreaterThan(20);
    expect(await tokenizer.encodeChatSliced(MESSAGES, { parseSpecialTokens: true })).toEqual(
      tokenizer.encodeChat(MESSAGES, { parseSpecialTokens: true }),
    );
  });

  it('is rendered there at once where the chat is large', async () => {
    const tokenizer = await withTemplate('{% for m in messages %}{{ m.content }}{% endfor %}');
    const messages = [{ role: 'user', content: 'word '.repeat(120_000) }];
    expect(await tokenizer.encodeChatSliced(messages)).toEqual(tokenizer.encodeChat(messages));
  });

  it('ends when its signal fires', async () => {
    const tokenizer = await withTemplate('{% for a in range(100000) %}{% for m in messages %}{% endfor %}{% endfor %}');
    const controller = new AbortController();
    const call = tokenizer.encodeChatSliced(MESSAGES, { signal: controller.signal });
    setTimeout(() => controller.abort(), 50);
    await expect(call).rejects.toMatchObject({ name: 'AbortError', code: 'ABORTED' });
  });

  it('is refused for what it goes beyond, with the same error', async () => {
    for (const source of [
      '{% for a in range(100000) %}{% for m in messages %}{% endfor %}{% endfor %}',
      '{% for m in messages %}{{ raise_exception("no " ~ m.role) }}{% endfor %}',
    ]) {
      const tokenizer = await withTemplate(source);
      const errors = await Promise.all(
        [async () => tokenizer.encodeChat(MESSAGES), () => tokenizer.encodeChatSliced(MESSAGES)].map((call) =>
          call().then(
            () => expect.fail('it rendered'),
            (error: unknown) => error as Error & { code: string },
          ),
        ),
      );
      expect(errors[1]).toMatchObject({ name: 'CqilError', code: errors[0]!.code });
      expect(errors[1]!.message.slice(0, 60)).toBe(errors[0]!.message.slice(0, 60));
    }
  });
});
