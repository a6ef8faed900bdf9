import { existsSync } from 'node:fs';
import os from 'node:os';
import type { Command } from 'commander';
import { cacheFolder } from '../util/cache_file.js';
import { shippedModelPath } from '../model/load.js';
import { describeCuda, describeMachine } from '../engine/machine.js';
import type { CudaInfo, MachineInfo } from '../engine/native.js';
import { counted } from '../util/count.js';
import { printJson, type Io } from './io.js';
import { addJsonOption } from './options.js';
import { formatBytes } from './table.js';
import { packageVersion } from './version.js';

export function addDoctor(program: Command, io: Io): void {
  addJsonOption(
    program.command('doctor').description('show what this machine has, and why something is not used'),
  ).action(async (options: { json?: boolean }) => {
    const report = await examine();
    if (options.json) printJson(io, report);
    else io.out(formatReport(report));
  });
}

/** What can be said with the addon, and without it. */
async function examine() {
  let machine: MachineInfo | undefined;
  let cuda: CudaInfo | undefined;
  let problem: string | undefined;
  try {
    machine = describeMachine();
    cuda = await describeCuda();
  } catch (error) {
    problem = (error as Error).message;
  }
  const model = shippedModelPath();
  return {
    versions: {
      cqil: packageVersion(),
      node: process.versions.node,
      v8: process.versions.v8,
      napi: process.versions.napi,
    },
    platform: `${process.platform}-${process.arch}`,
    cpu: machine?.cpu ?? os.cpus()[0]?.model ?? 'unknown',
    cores: machine?.cores ?? os.availableParallelism(),
    memoryBytes: machine?.memoryBytes ?? os.totalmem(),
    isa: machine?.isa ?? null,
    isas: machine?.isas ?? [],
    addon: { loaded: machine !== undefined, reason: problem ?? null },
    cuda: cuda ?? { available: false, reason: 'the native addon is not loaded', library: '', devices: [] },
    nccl: { available: false, reason: 'this version computes on one device, so nothing is reduced between devices' },
    model: { path: model, present: existsSync(model) },
    cache: keptIn(),
  };
}

function keptIn(): string | null {
  try {
    return cacheFolder() ?? null;
  } catch {
    return null; // a relative path in a folder that is gone
  }
}

function formatDevice({ name, capability, multiprocessors, memoryBytes }: CudaInfo['devices'][number]): string {
  return `${name} (compute capability ${capability}, ${multiprocessors} multiprocessors, ${formatBytes(memoryBytes)})`;
}

function formatReport(report: Awaited<ReturnType<typeof examine>>): string {
  const { versions, addon, cuda, nccl, model } = report;
  const isas = report.isas.map(({ name, supported }) =>
    name === report.isa ? `${name} (used)` : supported ? name : `${name} (not on this CPU)`,
  );
  const lines: Array<[string, string]> = [
    ['cqil', `${versions.cqil} on Node.js ${versions.node} (${report.platform}, Node-API ${versions.napi})`],
    ['cpu', `${report.cpu}, ${counted(report.cores, 'core')}, ${formatBytes(report.memoryBytes)} of memory`],
    ['instruction sets', isas.join(', ') || 'unknown without the native addon'],
    ['native addon', addon.loaded ? 'loaded' : `not loaded: ${addon.reason}`],
    ['cuda', cuda.available ? cuda.devices.map(formatDevice).join('; ') : `not used: ${cuda.reason}`],
    ['nccl', `not used: ${nccl.reason}`],
    ['shipped model', model.present ? model.path : `missing: ${model.path}`],
    ['measurements kept', report.cache ?? 'nowhere: there is no home folder; CQIL_CACHE_DIR may name another'],
  ];
  return lines.map(([name, value]) => `${name.padEnd(18)}${value}\n`).join('');
}
