import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { describe, expect, it } from 'vitest';

const ROOT = path.join(__dirname, '..');

/** What a fresh process has loaded after some code: files of dist/ without their endings, and modules of Node.js. */
function loadedAfter(code: string): { files: string[]; modules: string[]; libraries: string[] } {
  const script = `
    const cqil = require(${JSON.stringify(path.join(ROOT, 'dist', 'index.js'))});
    (async () => {
      ${code}
      console.log(JSON.stringify({ files: Object.keys(require.cache), modules: process.moduleLoadList }));
    })();`;
  const printed = execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' });
  const { files, modules } = JSON.parse(printed) as { files: string[]; modules: string[] };
  const own = files
    .map((file) => path.relative(path.join(ROOT, 'dist'), file).replaceAll(path.sep, '/'))
    .filter((file) => !file.startsWith('..'));
  const libraries = files.filter((file) => file.includes('node_modules'));
  return { files: own.map((file) => file.replace(/\.js$/, '')), modules, libraries };
}

// Loading a module takes Node.js a third of a millisecond, which comes before the first token.
describe('start-up', () => {
  it('loads with the package what checks a call, and no reader, tokenizer or session', () => {
    const { files, modules } = loadedAfter('');
    expect(files).toContain('model/load');
    const early = /^(tokenizer|session|generate|analysis|cli)\/|^checkpoint\/(gguf|huggingface|lora|synthetic|names)/;
    expect(files.filter((file) => early.test(file))).toEqual([]);
    expect(files.length).toBeLessThan(30);
    expect(modules).not.toContain('NativeModule crypto');
  });

  it('loads for a GGUF file without a chat template neither readers of folders and adapters nor chats', () => {
    const { files, modules, libraries } = loadedAfter(`
      const model = await cqil.loadModel(undefined, { backend: 'cpu', threads: 1 });
      await model.createSession().prefill([1]);
      await model.dispose();`);
    expect(files).toContain('checkpoint/gguf');
    const others =
      /^checkpoint\/(huggingface|config$|safetensors|sliced_json|lora|synthetic)|^tokenizer\/(chat_|jinja)/;
    expect(files.filter((file) => others.test(file))).toEqual([]);
    expect(modules).not.toContain('NativeModule internal/worker');
    expect(libraries).toEqual([]);
  });
});
