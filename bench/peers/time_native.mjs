// One timed run of llama.cpp without Node.js: request and answer as in time_cqil.mjs, and `native` as
// buildNativeLlama gives it.
import { spawnSync } from 'node:child_process';
import { readRequest } from './request.mjs';

const { native, model, threads, contextLength, warmIds, ids, tokens } = await readRequest();
const { stdout, stderr, status, error } = spawnSync(
  native.program,
  [native.library, model, threads, contextLength, tokens].map(String),
  { input: [warmIds.length, ...warmIds, ids.length, ...ids].join(' '), encoding: 'utf8' },
);
if (status !== 0) throw new Error(stderr || (error?.message ?? `native_llama ended with status ${status}`));
process.stdout.write(stdout);
