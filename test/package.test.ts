import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { tempFolder } from './support/temp_folder.js';

const root = path.join(__dirname, '..');
const modules = path.join(root, 'node_modules');
const tsc = path.join(modules, 'typescript/bin/tsc');

interface Manifest {
  dependencies: Record<string, string>;
}

function node(script: string, args: string[], cwd: string): string {
  try {
    return execFileSync(process.execPath, [script, ...args], { cwd, encoding: 'utf8', stdio: 'pipe' });
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    throw new Error(`${path.basename(script)} failed:\n${stdout}\n${stderr}`, { cause: error });
  }
}

describe('the package as npm packs it', () => {
  const source = tempFolder();
  const app = tempFolder();
  let tarball: string;

  beforeAll(() => {
    node(tsc, ['-p', path.join(root, 'tsconfig.build.json'), '--outDir', path.join(source, 'dist')], root);
    for (const file of ['package.json', 'binding.gyp', 'native', 'scripts/install.mjs', 'scripts/prepare.mjs'])
      cpSync(path.join(root, file), path.join(source, file), { recursive: true });
    // Scripts are for a checkout with its compilers; this folder is compiled already.
    execFileSync('npm', ['pack', '--ignore-scripts', '--silent'], {
      cwd: source,
      stdio: 'pipe',
      shell: process.platform === 'win32',
    });
    tarball = path.join(
      source,
      readdirSync(source).find((file) => file.endsWith('.tgz'))!,
    );

    const installed = path.join(app, 'node_modules/cqil');
    mkdirSync(installed, { recursive: true });
    execFileSync('tar', ['-xzf', tarball, '-C', installed, '--strip-components=1']);
    const { dependencies } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as Manifest;
    for (const name of [...Object.keys(dependencies), '@types/node', 'undici-types']) {
      mkdirSync(path.dirname(path.join(app, 'node_modules', name)), { recursive: true });
      symlinkSync(path.join(modules, name), path.join(app, 'node_modules', name), 'junction');
    }
  });

  it('holds what an installation compiles and runs, and no tests', () => {
    const files = execFileSync('tar', ['-tzf', tarball], { encoding: 'utf8' })
      .trim()
      .split('\n')
      .map((file) => file.replace(/^package\//, ''));
    expect(files).toEqual(
      expect.arrayContaining([
        'dist/index.js',
        'dist/index.mjs',
        'dist/index.d.ts',
        'dist/index.d.mts',
        'dist/analysis/index.mjs',
        'dist/analysis/index.d.mts',
        'dist/cli/main.js',
        'binding.gyp',
        'scripts/install.mjs',
        'scripts/prepare.mjs',
        'native/sources.gypi',
        'native/addon/addon.cc',
      ]),
    );
    expect(files.filter((file) => !/^(dist|native|models|scripts\/(install|prepare)\.mjs|[^/]+$)/.test(file))).toEqual(
      [],
    );
  });

  it('publint finds nothing', () => {
    node(path.join(modules, 'publint/src/cli.js'), ['run', source, '--pack', 'false', '--strict'], source);
  });

  it('its types are right for every way to import it', () => {
    node(path.join(modules, '@arethetypeswrong/cli/dist/index.js'), [tarball], source);
  });

  it('require and import give the same things', () => {
    writeFileSync(
      path.join(app, 'both.mjs'),
      `import * as imported from 'cqil';
       import { createRequire } from 'node:module';
       import * as analysis from 'cqil/analysis';
       const require = createRequire(import.meta.url);
       const required = require('cqil');
       const measuring = require('cqil/analysis');
       const namesOf = (it) => Object.keys(it).filter((name) => !['default', 'module.exports'].includes(name)).sort();
       const same =
         namesOf(required).every((name) => imported[name] === required[name]) &&
         namesOf(analysis).join() === namesOf(measuring).join() &&
         namesOf(measuring).every((name) => analysis[name] === measuring[name]);
       const error = await imported.loadModel('nowhere').catch((error) => error);
       console.log(JSON.stringify({ imported: Object.keys(imported), required: Object.keys(required).sort(), same, is: error instanceof required.CqilError, code: error.code }));`,
    );
    const found = JSON.parse(node(path.join(app, 'both.mjs'), [], app)) as { imported: string[]; required: string[] };
    expect(found.imported.filter((name) => !['default', 'module.exports'].includes(name))).toEqual(found.required);
    expect(found.required).toContain('loadModel');
    expect(found).toMatchObject({ same: true, is: true, code: 'FILE_NOT_FOUND' });
  });

  describe('a TypeScript program of either kind compiles against it, declaration files checked', () => {
    const body = `
      async function main(): Promise<string> {
        const model: Model = await loadModel(undefined, { plan: 'P2-S4-E12', onProgress: ({ loaded, total }) => void (loaded / total) });
        for await (const { text, token } of model.generate('Once', { maxTokens: 5, stop: ['.'] })) void (text + token.toFixed());
        const { text, finishReason }: GenerationResult = await model.generate([1, 2]);
        const session = model.createSession({ contextLength: 64 });
        const scores: Float32Array = await session.score(model.tokenizer.encode('a'));
        const windows = modelWindows(model, model.tokenizer.encode('a'), 2, 'gptq');
        const qualities: TextQuality[] = await comparePlans(model, [model.plan], windows);
        const found: FoundPlans = await findPlans(model, [1, 2], { goal: { kind: 'kl', limit: qualities[0]!.kl.mean }, seed: 1 });
        void found.front.map(({ plan }) => plan.groups);
        await model.dispose();
        return text + finishReason + scores.length + model.plan.groups.length;
      }
      main().catch((error) => { if (error instanceof CqilError && error.code === 'ABORTED') throw error; });`;
    const programs = ['program.cts', 'program.mts'];
    const compile = (compiler: string, folder: string, options: Record<string, unknown>): void => {
      for (const file of programs)
        writeFileSync(
          path.join(folder, file),
          `import { CqilError, loadModel, type GenerationResult, type Model } from 'cqil';
           import { comparePlans, findPlans, modelWindows, type FoundPlans, type TextQuality } from 'cqil/analysis';${body}`,
        );
      const compilerOptions = {
        noEmit: true,
        strict: true,
        skipLibCheck: false,
        module: 'nodenext',
        target: 'es2022',
        ...options,
      };
      writeFileSync(path.join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: programs }));
      node(compiler, ['-p', folder], folder);
    };

    it('with the compiler it is written for', () => {
      compile(tsc, app, { types: ['node'] });
    });

    it.each([
      ['without @types/node', {}],
      ['nor the DOM', { lib: ['es2022'] }],
      ['for an older target', { target: 'es2018' }],
      ['that a bundler resolves', { module: 'esnext', moduleResolution: 'bundler' }],
    ])('with TypeScript 5.2, %s', (_, options) => {
      const bare = path.join(source, 'bare');
      const installed = path.join(bare, 'node_modules/cqil');
      mkdirSync(installed, { recursive: true });
      execFileSync('tar', ['-xzf', tarball, '-C', installed, '--strip-components=1']);
      compile(path.join(__dirname, 'typescript-5.2/node_modules/typescript/bin/tsc'), bare, { types: [], ...options });
    });
  });
});
