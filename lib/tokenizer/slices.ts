/** Does all slices of some work at once, and gives what it returns. */
export function allOf<T>(work: Generator<void, T>): T {
  for (;;) {
    const { done, value } = work.next();
    if (done) return value;
  }
}
