// Runs clang-format, with the options given, on every C++ and CUDA file of the project.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '..');
const files = ['native', 'test/native', 'bench/native'].flatMap((folder) =>
  readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((file) => /\.(h|cc|cuh|cu)$/.test(file))
    .map((file) => path.join(folder, file)),
);
const clangFormat = createRequire(import.meta.url).resolve('@wasm-fmt/clang-format/clang-format-cli.cjs');
const { status } = spawnSync(process.execPath, [clangFormat, ...process.argv.slice(2), ...files], {
  cwd: root,
  stdio: 'inherit',
});
process.exitCode = status ?? 1;
