import { existsSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { CqilError, type ErrorCode } from '../errors.js';
import { pick } from '../util/pick.js';
import { inThisRealm } from '../util/realm.js';
import type { NativeAddon } from './native.js';

const ADDON_FILE = 'build/Release/cqil.node';
const HOW_TO_BUILD =
  'Run "npm rebuild cqil" (in a checkout "npm run build:native"), which needs Python 3, make and a C++17 compiler. ' +
  'npm 12 and pnpm 10 run the scripts of packages only when they are approved: run "npm approve-scripts cqil" ' +
  'before that, or "pnpm approve-builds" (or list cqil in onlyBuiltDependencies) and "pnpm rebuild cqil".';
let addon: NativeAddon | undefined;

/** Loads the addon on first use. Throws NATIVE_ADDON with what was tried and what to run. */
export function loadNative(): NativeAddon {
  addon ??= withCodedErrors(requireAddon());
  return addon;
}

// In tests a folder of lib/, in the package one of dist/: the package root is two levels up from either.
function addonPath(): string {
  return unpacked(path.join(__dirname, '../..', ADDON_FILE));
}

function buildOf(file: string): string {
  const { size, mtimeMs } = statSync(file);
  return `${size}-${Math.floor(mtimeMs)}`;
}

function requireAddon(): NativeAddon {
  const file = addonPath();
  if (!existsSync(file)) {
    throw new CqilError('NATIVE_ADDON', `The native addon is not built: ${file} does not exist. ${HOW_TO_BUILD}`);
  }
  try {
    return createRequire(__filename)(file) as NativeAddon;
  } catch (cause) {
    throw new CqilError(
      'NATIVE_ADDON',
      `The native addon at ${file} cannot be loaded: ${(cause as Error).message.replace(/\.?$/, '.')} ${HOW_TO_BUILD}`,
      { cause },
    );
  }
}

/** The addon throws plain errors with a `code`; made here, a CqilError has the stack of whoever awaits the call. */
function coded(error: unknown): CqilError {
  const { code = 'INTERNAL', message } = error as Error & { code?: ErrorCode };
  return new CqilError(code, message);
}

function sync<A extends unknown[], R>(call: (...args: A) => R) {
  return (...args: A): R => {
    try {
      return call(...args);
    } catch (error) {
      throw coded(error);
    }
  };
}

function async<A extends unknown[], R>(call: (...args: A) => Promise<R>) {
  return async (...args: A): Promise<R> => {
    try {
      return await call(...args);
    } catch (error) {
      throw coded(error);
    }
  };
}

function withCodedErrors(raw: NativeAddon): NativeAddon {
  return {
    describeMachine: sync(() => ({
      ...inThisRealm(raw.describeMachine()),
      arch: os.arch(),
      cpu: os.cpus()[0]?.model.trim() ?? 'unknown',
      memoryBytes: os.totalmem(),
      build: buildOf(addonPath()),
    })),
    describeCuda: async(async () => inThisRealm(await raw.describeCuda())),
    measureBandwidth: async(raw.measureBandwidth),
    compileProgram: sync((shape, plan) => inThisRealm(raw.compileProgram(shape, plan))),
    place: sync((plan, request) => inThisRealm(raw.place(plan, request))),
    loadModel: async(raw.loadModel),
    readModel: async(raw.readModel),
    disposeModel: async(raw.disposeModel),
    createSession: sync(raw.createSession),
    forward: async(async (session, request) => inThisRealm(await raw.forward(session, request))),
    forwardTogether: async(async (calls) =>
      (await raw.forwardTogether(calls)).map((outcome) =>
        'error' in outcome ? { error: coded(outcome.error) } : { value: inThisRealm(outcome.value) },
      ),
    ),
    timeline: async(async (session, request) => inThisRealm(await raw.timeline(session, request))),
    cancel: sync(raw.cancel),
    closeSession: sync(raw.closeSession),
    openExchange: sync((spec) => {
      const end = raw.openExchange(spec);
      return {
        ...pick(end, ['handle', 'address']),
        meet: async((patience) => end.meet(patience)),
        abort: sync((rank, why) => end.abort(rank, why)),
        close: sync(() => end.close()),
      };
    }),
    followLeader: async(raw.followLeader),
  };
}

/** Electron keeps only unpacked files of an asar archive as real files, and native code needs real files. */
export function unpacked(file: string): string {
  return file.replace(/([\\/]app\.asar)([\\/])/, '$1.unpacked$2');
}

/**
 * The shape as the engine takes it. A multiplier r of what blocks add is not computed: with x = r·X the stream
 * X' = X + a + m has none, embeddings are divided by r, and a norm of X whose epsilon is divided by r² is the norm of x.
 * r is then the unit of the engine's stream.
 */
