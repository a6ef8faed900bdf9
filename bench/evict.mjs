import { execFileSync } from 'node:child_process';

/** Drops a file's pages from the system's cache, with GNU dd's advice. Throws where that cannot be done. */
export function evict(file) {
  execFileSync('dd', [`if=${file}`, 'iflag=nocache', 'count=0'], { stdio: 'ignore' });
}
