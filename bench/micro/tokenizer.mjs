import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { openCheckpoint } from '../../dist/checkpoint/open.js';
import { shippedModelPath } from '../../dist/model/load.js';
import { StopMatcher } from '../../dist/generate/stop.js';
import { loadTokenizer } from '../../dist/tokenizer/index.js';

/** Data beside the checkout that the project does not ship. */
const SHARED = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../../shared/data');
const CHUNK = 16_384;

export async function tokenizerTasks() {
  const llama2 = path.join(SHARED, 'tokenizers/llama-1-2');
  const text = path.join(SHARED, 'corpora/wikitext-2/wiki.test.raw.txt');
  const shipped = await openCheckpoint(shippedModelPath());
  const tasks = await tasksOf(
    'shipped',
    await shipped.readTokenizer(),
    shipped.config.vocabSize,
    path.join(path.dirname(shipped.path), 'heldout.txt'),
  );
  const missing = [llama2, text].some((file) => !existsSync(file));
  if (!missing) {
    const [json, config] = ['tokenizer.json', 'tokenizer_config.json'].map((part) =>
      JSON.parse(readFileSync(path.join(llama2, part), 'utf8')),
    );
    tasks.push(
      ...(await tasksOf(
        'LLaMA-2',
        { kind: 'huggingface', json, config, generationConfig: undefined },
        undefined,
        text,
      )),
    );
  }
  return { tasks, skipped: missing ? ['LLaMA-2 tokenizer: the shared test data is not beside this checkout'] : [] };
}

/** A long text is taken a chunk at a time, so that words keep changing as they do for a user. */
async function tasksOf(name, source, vocabSize, file) {
  const tokenizer = await loadTokenizer(source, vocabSize);
  const text = readFileSync(file, 'utf8');
  const chunks = Array.from({ length: Math.max(1, Math.floor(text.length / CHUNK)) }, (_, i) =>
    text.slice(i * CHUNK, (i + 1) * CHUNK),
  );
  const ids = chunks.map((chunk) => tokenizer.encode(chunk));
  const count = ids.reduce((total, list) => total + list.length, 0) / ids.length;
  const bytes = Buffer.byteLength(chunks.join('')) / chunks.length;

  const pieces = ids.map((list) => list.map((id) => tokenizer.decode([id])));
  const rotating = (work) => {
    let turn = 0;
    return () => work(turn++ % chunks.length);
  };
  return [
    { name: `encode, ${name}`, per: 'token', count, bytes, run: rotating((i) => tokenizer.encode(chunks[i])) },
    { name: `decode, ${name}`, per: 'token', count, bytes, run: rotating((i) => tokenizer.decode(ids[i])) },
    {
      name: `detokenizer push, ${name}`,
      per: 'token',
      count,
      run: rotating((i) => {
        const detokenizer = tokenizer.detokenizer();
        for (const id of ids[i]) detokenizer.push(id);
      }),
    },
    {
      name: `stop matcher push, ${name}`,
      per: 'token',
      count,
      run: rotating((i) => {
        const stops = new StopMatcher(['</s>', '\n\nUser:', 'The end of all this.', '###']);
        for (const piece of pieces[i]) stops.push(piece);
      }),
    },
    { name: `load, ${name}`, run: () => loadTokenizer(source, vocabSize) },
  ];
}
