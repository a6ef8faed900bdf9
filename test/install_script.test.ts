import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { diagnose } from '../scripts/install.mjs';
import { tempFolder } from './support/temp_folder.js';
import { describeUnless } from './support/unless.js';

const root = path.join(__dirname, '..');
const folder = tempFolder();

describe('when the addon cannot be compiled, one sentence says what is missing', () => {
  it.each<[string, string, RegExp]>([
    [
      'Python',
      'gyp ERR! stack Error: Could not find any Python installation to use',
      /: Python 3 is missing; .*apt install python3 make g\+\+/,
    ],
    ['make', 'gyp ERR! stack Error: not found: make', /: make is missing; /],
    [
      'a compiler, as make says it',
      'make: g++: No such file or directory\nmake: *** [a.o] Error 127',
      /: a C\+\+ compiler is missing; /,
    ],
    ['a compiler, as a shell says it', '/bin/sh: 1: c++: not found', /: a C\+\+ compiler is missing; /],
    [
      'a compiler of this century',
      "g++: error: unrecognized command line option '-std=gnu++17'",
      /: a C\+\+ compiler that knows C\+\+17 is missing; /,
    ],
    [
      'a network',
      'gyp ERR! stack Error: connect ECONNREFUSED 127.0.0.1:9',
      /headers of Node\.js could not be downloaded: .*npm_config_nodedir/,
    ],
    ['space', 'fatal error: error writing to /tmp/a.s: No space left on device', /the disk is full/],
    [
      'something else',
      'a.cc:1:1: error: expected unqualified-id',
      /says above why; it takes Python 3, make and a C\+\+17 compiler/,
    ],
  ])('%s', (_, printed, says) => {
    const sentence = diagnose(printed, { platform: 'linux' });
    expect(sentence).toMatch(says);
    expect(sentence).toMatch(/^cqil: the native addon was not compiled: [^\n]*, then run "npm rebuild cqil"\.$/);
  });

  it('the tools are named as the system calls them', () => {
    expect(diagnose('Could not find any Python installation', { platform: 'darwin' })).toContain(
      'xcode-select --install',
    );
    expect(diagnose('Could not find any Visual Studio installation to use', { platform: 'win32' })).toMatch(
      /Visual Studio Build Tools is missing.*Desktop development with C\+\+/,
    );
  });
});

describeUnless(
  process.platform === 'win32' ? 'another system: its programs are stood in for by shell scripts' : undefined,
  'scripts/install.mjs',
  () => {
    const run = (script: string) => {
      const bin = path.join(folder, 'bin');
      mkdirSync(bin, { recursive: true });
      writeFileSync(path.join(bin, 'node-gyp'), `#!/bin/sh\nif [ "$1" = --version ]; then exit 0; fi\n${script}\n`);
      chmodSync(path.join(bin, 'node-gyp'), 0o755);
      const { status, stdout, stderr } = spawnSync(
        process.execPath,
        [path.join(root, 'scripts/install.mjs'), 'node-gyp', 'rebuild'],
        { env: { ...process.env, PATH: `${bin}:/usr/bin:/bin` }, encoding: 'utf8' },
      );
      return { status, stdout, stderr };
    };

    it('passes on what node-gyp prints, and its exit code', () => {
      expect(run('echo "$@"; echo noise >&2')).toEqual({ status: 0, stdout: 'rebuild\n', stderr: 'noise\n' });
      const failed = run('echo "gyp ERR! stack Error: not found: make" >&2; exit 7');
      expect(failed).toMatchObject({
        status: 7,
        stderr: expect.stringMatching(
          /^gyp ERR! [^]*\n\ncqil: the native addon was not compiled: make is missing; [^\n]*\n$/,
        ),
      });
    });

    it('says that node-gyp itself is missing', () => {
      const { status, stderr } = spawnSync(
        process.execPath,
        [path.join(root, 'scripts/install.mjs'), 'no-such-node-gyp', 'rebuild'],
        { encoding: 'utf8' },
      );
      expect(status).not.toBe(0);
      expect(stderr).toMatch(/node-gyp is missing: add it to your project/);
    });
  },
);

describe('scripts/prepare.mjs, which npm runs when it rebuilds a linked package', () => {
  const packaged = (files: Record<string, string>): string => {
    const target = path.join(folder, `packaged${Object.keys(files).length}`);
    for (const [name, content] of Object.entries({
      'package.json': readFileSync(path.join(root, 'package.json'), 'utf8'),
      ...files,
    })) {
      mkdirSync(path.dirname(path.join(target, name)), { recursive: true });
      writeFileSync(path.join(target, name), content);
    }
    cpSync(path.join(root, 'scripts/prepare.mjs'), path.join(target, 'scripts/prepare.mjs'));
    return path.join(target, 'scripts/prepare.mjs');
  };

  it('needs no TypeScript where dist/ is', () => {
    expect(spawnSync(process.execPath, [packaged({ 'dist/index.js': '' })], { encoding: 'utf8' })).toMatchObject({
      status: 0,
      stdout: '',
      stderr: '',
    });
  });

  it('says so where neither is', () => {
    expect(spawnSync(process.execPath, [packaged({})], { encoding: 'utf8' })).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('no TypeScript'),
    });
  });
});
