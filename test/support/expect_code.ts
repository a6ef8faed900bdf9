import { expect } from 'vitest';
import { CqilError, type ErrorCode } from '../../lib/errors.js';

/** Expects a CqilError with this code and message from a function, or from a promise it gives. */
export function expectCode(code: ErrorCode, action: () => void, message?: RegExp): void {
  let thrown: unknown;
  try {
    action();
  } catch (error) {
    thrown = error;
  }
  expectError(thrown, code, message);
}

export async function expectRejection(code: ErrorCode, promise: PromiseLike<unknown>, message?: RegExp): Promise<void> {
  const thrown = await Promise.resolve(promise).then(
    () => undefined,
    (error: unknown) => error,
  );
  expectError(thrown, code, message);
}

function expectError(thrown: unknown, code: ErrorCode, message: RegExp = /./): void {
  expect(thrown).toBeInstanceOf(CqilError);
  expect(thrown).toMatchObject({ code, message: expect.stringMatching(message) });
}
