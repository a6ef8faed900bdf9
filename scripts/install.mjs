/**
 * node scripts/install.mjs node-gyp rebuild
 *
 * Runs the command given, which compiles the addon. When it fails, one sentence after its output says what was missing.
 * Needs only Node.js, and the node-gyp that npm, pnpm and Yarn put on the path of a script.
 */
import { spawn, spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const MOST_KEPT = 1 << 20;
const NEEDS = {
  linux:
    'Debian, Ubuntu: apt install python3 make g++; Fedora: dnf install python3 make gcc-c++; Alpine: apk add ' +
    'python3 make g++',
  darwin: 'xcode-select --install',
  win32: 'Visual Studio Build Tools with "Desktop development with C++", and Python 3',
};

/**
 * What node-gyp and compilers print when something is missing, and the name of what is missing. The first match counts.
 */
const MISSING = [
  [/Could not find any Python installation/, 'Python 3'],
  [/not found: g?make\b|spawn g?make ENOENT/, 'make'],
  [/Could not find any Visual Studio installation/, 'Visual Studio Build Tools'],
  [
    /(?:[cg]\+\+|clang\+\+|gcc|clang|\bcc): (?:command )?not found|\b[cg]\+\+: No such file or directory|cannot execute[^\n]*cc1plus|No developer tools were found/,
    'a C++ compiler',
  ],
  [
    /unrecognized command[- ]line option[^\n]*std=\S*\+\+17|invalid value '\S*\+\+17'/,
    'a C++ compiler that knows C++17',
  ],
];

/** What they print for problems that no installation solves, and what the problem is and what to do about it. */
const OTHERS = [
  [
    /ENOTFOUND|ECONNREFUSED|EAI_AGAIN|ETIMEDOUT|ECONNRESET|fetch failed|response downloading|related to network connectivity/,
    'the headers of Node.js could not be downloaded: without a network, set npm_config_nodedir to a folder that ' +
      'has them in include/node',
  ],
  [/No space left on device/, 'the disk is full: make room'],
  [
    /virtual memory exhausted|Killed signal terminated program|cannot allocate memory/i,
    'memory ran out while compiling: close what else takes it',
  ],
];

/** The sentence that says what went wrong, from what was printed. */
export function diagnose(printed, { platform = process.platform, nodeGyp = true } = {}) {
  const failed = 'cqil: the native addon was not compiled: ';
  const then = ', then run "npm rebuild cqil".';
  if (!nodeGyp) return `${failed}node-gyp is missing: add it to your project (npm install --save-dev node-gyp)${then}`;
  const find = (signs) => signs.find(([sign]) => sign.test(printed))?.[1];
  const missing = find(MISSING);
  const other = missing === undefined ? find(OTHERS) : undefined;
  if (other !== undefined) return `${failed}${other}${then}`;
  const found = missing === undefined ? 'node-gyp or the compiler says above why' : `${missing} is missing`;
  return (
    `${failed}${found}; it takes Python 3, make and a C++17 compiler (${NEEDS[platform] ?? NEEDS.linux}): ` +
    `install what is missing${then}`
  );
}

function main(command) {
  // Run by the shell, because node-gyp is a .cmd file on Windows.
  const child = spawn(command.join(' '), { shell: true, stdio: ['inherit', 'pipe', 'pipe'] });
  let printed = '';
  for (const [from, to] of [
    [child.stdout, process.stdout],
    [child.stderr, process.stderr],
  ]) {
    from.on('data', (chunk) => {
      printed = (printed + chunk.toString()).slice(-MOST_KEPT);
      to.write(chunk);
    });
  }
  child.on('close', (code) => {
    if (code === 0) return;
    const nodeGyp = spawnSync(`${command[0]} --version`, { shell: true }).status === 0;
    process.stderr.write(`\n${diagnose(printed, { nodeGyp })}\n`);
    process.exitCode = code ?? 1;
  });
}

// A test imports this file, and must not run it.
if (process.argv.length > 2 && path.resolve(process.argv[1]) === fileURLToPath(import.meta.url))
  main(process.argv.slice(2));
