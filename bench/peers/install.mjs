// Installs the peer beside cqil from the npm registry: node-llama-cpp at its pinned version and the one prebuilt CPU
// library for this machine. Its other prebuilds (CUDA, Vulkan: hundreds of MB) are optional and left out, and no
// install script runs, because a missing prebuild would make it download and compile llama.cpp. `npm ci` would refuse:
// not every prebuild that node-llama-cpp lists is published, so no lock file can have them all.
// Exit code 0 when the peer can be used; otherwise the reason is the last line on stderr.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const { dependencies } = JSON.parse(readFileSync(path.join(here, 'package.json'), 'utf8'));
const version = dependencies['node-llama-cpp'];
const platform =
  process.platform === 'darwin' ? `mac-${process.arch}` : `${process.platform.replace('win32', 'win')}-${process.arch}`;
const prebuilt = `@node-llama-cpp/${platform === 'mac-arm64' ? 'mac-arm64-metal' : platform}`;

function installed() {
  return [['node-llama-cpp'], prebuilt.split('/')].every((parts) => {
    const manifest = path.join(here, 'node_modules', ...parts, 'package.json');
    return existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).version === version;
  });
}

try {
  if (!installed()) {
    const options = [
      '--no-save',
      '--ignore-scripts',
      '--omit=optional',
      '--no-audit',
      '--no-fund',
      '--loglevel=error',
      '--fetch-retries=1',
      '--fetch-retry-mintimeout=2000',
    ];
    execFileSync('npm', ['install', ...options, `${prebuilt}@${version}`], {
      cwd: here,
      stdio: ['ignore', 'ignore', 'pipe'],
      timeout: 300_000,
      shell: process.platform === 'win32',
    });
  }
} catch (error) {
  const reason = String(error.stderr || error.message)
    .trim()
    .replace(/\s*npm error\s*/g, ' ')
    .trim()
    .slice(0, 160);
  console.error(`The peer node-llama-cpp ${version} could not be installed: ${reason}`);
  process.exitCode = 1;
}
