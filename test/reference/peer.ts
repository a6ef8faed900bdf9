import { execFile, execFileSync } from 'node:child_process';
import path from 'node:path';

const peers = path.join(__dirname, '../../bench/peers');

/** `model` is a GGUF file. */
export type PeerRequest = { model: string; contextLength: number } & (
  | { ids: readonly number[] } //                 → logProbs (nats) [ids.length][vocabSize], with the peer's most exact settings
  | { ids: readonly number[]; greedy: number } // → tokens: the most likely next one, that many times over
  | { text: string } //                           → tokens, without BOS
  | { texts: readonly string[] } //               → tokenized: such tokens for each text
);

export interface PeerAnswer {
  logProbs: number[][];
  tokens: number[];
  tokenized: number[][];
}

/** Installs the peer if it is not yet; the reason when it cannot be had here. */
export function peerMissing(): string | undefined {
  try {
    execFileSync(process.execPath, [path.join(peers, 'install.mjs')], { stdio: 'pipe', timeout: 310_000 });
    return undefined;
  } catch (error) {
    const { stderr, message } = error as { stderr?: Buffer; message: string };
    return stderr?.toString().trim().split('\n').at(-1) || message;
  }
}

/**
 * One answer per request. The peer runs in a process of its own: it is an ES module with top-level await, and its
 * native code should not share ours.
 */
export function askPeer(requests: readonly PeerRequest[]): Promise<PeerAnswer[]> {
  return new Promise((resolve, reject) => {
    const limits = { timeout: 100_000, maxBuffer: 256 * 2 ** 20 };
    const child = execFile(process.execPath, [path.join(peers, 'oracle.mjs')], limits, (error, stdout, stderr) => {
      if (error) reject(new Error(`The peer failed: ${stderr || error.message}`));
      else resolve(JSON.parse(stdout) as PeerAnswer[]);
    });
    child.stdin!.end(JSON.stringify(requests));
  });
}
