import { describeMachine } from '../engine/machine.js';
import type { Model } from '../model/model.js';

/** What computed a result, for its JSON document. */
export function machineOf(model: Model) {
  const { cpu, cores, isa, memoryBytes } = describeMachine();
  return {
    cpu,
    cores,
    isa,
    memoryBytes,
    node: process.versions.node,
    backend: model.backend,
    threads: model.threads,
    kvCache: model.kvCache,
    activations: model.activations,
  };
}

/** The machine in a few words. */
export function machineSummary({ threads, isa, cpu, kvCache, activations }: ReturnType<typeof machineOf>): string {
  return (
    `${threads} ${threads === 1 ? 'thread' : 'threads'} (${isa}) on ${cpu}, KV cache ${kvCache}, activations ` +
    `${activations}`
  );
}
