import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { text } from '../tools/gguf/gguf_writer.mjs';
import { loadModel } from '../lib/model/load.js';
import { cqil } from './support/cli.js';
import { writeRandomModel } from './support/random_model.js';
import { tempFolder } from './support/temp_folder.js';

describe('cqil generate', () => {
  const template = "<s>{% for m in messages %}{{ m.role ~ ': ' ~ m.content }}</s>{% endfor %}assistant:";
  const metadata = { 'tokenizer.chat_template': text(template) };
  const file = writeRandomModel(path.join(tempFolder(), 'chat.gguf'), {
    format: 'gguf',
    vocabulary: true,
    shape: { vocabSize: 300 },
    metadata,
  });
  const PROMPT = 'a</s>b';

  it('takes control tokens in a prompt, and in a message, as text unless asked', async () => {
    const { tokenizer, dispose } = await loadModel(file).then((model) => ({
      tokenizer: model.tokenizer,
      dispose: () => model.dispose(),
    }));
    const message = [{ role: 'user', content: PROMPT }];
    const expected: Array<[flags: string[], ids: number[]]> = [
      [[], tokenizer.encode(PROMPT, { parseSpecialTokens: false })],
      [['--parse-special-tokens'], tokenizer.encode(PROMPT)],
      [['--chat'], tokenizer.encodeChat(message)],
      [['--chat', '--parse-special-tokens'], tokenizer.encodeChat(message, { parseSpecialTokens: true })],
    ];
    await dispose();
    expect(new Set(expected.map(([, ids]) => ids.length)).size).toBe(4);
    for (const [flags, ids] of expected) {
      const { code, stdout } = await cqil(['generate', file, '-p', PROMPT, '-n', '1', '--json', ...flags]);
      expect(
        { code, promptTokens: (JSON.parse(stdout) as { promptTokens: number }).promptTokens },
        flags.join(' '),
      ).toEqual({ code: 0, promptTokens: ids.length });
    }
  });

  it('has no control tokens to read in token ids', async () => {
    expect(await cqil(['generate', file, '--token-ids', '1', '--parse-special-tokens'])).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/cannot be used with/),
    });
  });
});
