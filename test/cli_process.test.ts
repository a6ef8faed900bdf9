import { spawn, spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildPackage } from './support/built_package.js';

let folder: string;
let main: string;
beforeAll(() => {
  folder = buildPackage();
  main = path.join(folder, 'dist/cli/main.js');
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function cqil(...args: string[]): { code: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' });
  return { code: status, stdout, stderr };
}

describe('the program', () => {
  it('is a Node script', () => {
    expect(readFileSync(main, 'utf8').split('\n')[0]).toBe('#!/usr/bin/env node');
  });

  it('exits with 0, 1 and 2', () => {
    expect(cqil('plan', 'check', 'P2-S0-E4', '--layers', '4')).toMatchObject({ code: 0, stderr: '' });
    expect(cqil('plan', 'check', 'P2-S0-E5', '--layers', '4')).toMatchObject({ code: 1, stdout: '' });
    expect(cqil('paln')).toEqual({
      code: 2,
      stdout: '',
      stderr: "cqil: unknown command 'paln' (Did you mean plan?)\n",
    });
  });

  it('ends quietly when nobody reads its output', async () => {
    const child = spawn(process.execPath, [main, 'plan', 'make', '--plan', 'P2-S0-E1000', '--layers', '1000'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stdout.destroy();
    let stderr = '';
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    const code = await new Promise((resolve) => child.on('close', resolve));
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  });

  const ended = (child: ReturnType<typeof spawn>): Promise<unknown> =>
    new Promise((resolve) => child.on('close', resolve));

  it('does its work when nobody reads what it says about it', async () => {
    const child = spawn(process.execPath, [main, 'plan', 'check', 'LLaMA-7B-S0-E4-P2-D1', '--layers', '4'], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stderr!.destroy();
    let stdout = '';
    child.stdout!.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
    expect({ code: await ended(child), stdout }).toEqual({
      code: 0,
      stdout: expect.stringContaining('fits') as unknown,
    });
    const failing = spawn(process.execPath, [main, 'plan', 'check', 'P2-S0-E5', '--layers', '4'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    failing.stderr!.destroy();
    expect(await ended(failing)).toBe(1);
  });

  it('says that the disk is full', ({ skip }) => {
    if (process.platform !== 'linux') skip('another system: only Linux has /dev/full');
    const full = openSync('/dev/full', 'w');
    const args = [main, 'plan', 'make', '--plan', 'P2-S0-E4', '--layers', '4'];
    const { status, stderr } = spawnSync(process.execPath, args, { stdio: ['ignore', full, 'pipe'], encoding: 'utf8' });
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: 'cqil: stdout cannot be written: no space is left (ENOSPC)\n',
    });
    expect(spawnSync(process.execPath, args, { stdio: ['ignore', 'pipe', full] }).status).toBe(0);
    closeSync(full);
  });

  it('examines a machine where the addon is missing', () => {
    rmSync(path.join(folder, 'build'), { force: true });
    const { code, stdout, stderr } = cqil('doctor', '--json');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const missing = { loaded: false, reason: expect.stringContaining('not built') as unknown };
    expect(JSON.parse(stdout)).toMatchObject({
      versions: { node: process.versions.node },
      addon: missing,
      cuda: { available: false },
      nccl: { available: false },
    });
    expect(cqil('doctor').stdout).toMatch(
      /native addon      not loaded: .*npm rebuild cqil.*pnpm approve-builds.*onlyBuiltDependencies/,
    );
  });
});
