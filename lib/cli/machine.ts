import { describeMachine } from '../engine/machine.js';
import type { Model } from '../model/model.js';
import { counted } from '../util/count.js';
import { pick } from '../util/pick.js';

/** What computed a result, for its JSON document. */
export function machineOf(model: Model) {
  return {
    ...pick(describeMachine(), ['cpu', 'cores', 'isa', 'memoryBytes']),
    node: process.versions.node,
    ...pick(model, ['backend', 'threads', 'kvCache', 'activations']),
  };
}

/** The machine in a few words. */
export function machineSummary({ threads, isa, cpu, kvCache, activations }: ReturnType<typeof machineOf>): string {
  return `${counted(threads, 'thread')} (${isa}) on ${cpu}, KV cache ${kvCache}, activations ` + `${activations}`;
}
