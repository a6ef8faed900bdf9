/** Takes all steps of some work at once, and gives what it returns. */
export function allOf<T>(steps: Generator<void, T>): T {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}
