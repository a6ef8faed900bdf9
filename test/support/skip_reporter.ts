import type { Reporter, TestCase, TestModule, Vitest } from 'vitest/node';
import { recordRun, type Skip } from '../../scripts/skips.mjs';

/**
 * Counts the tests that did not run, and says why: as `describeUnless` puts it into a suite's name, or as a test's own
 * `skip(reason)`.
 */
export default class SkipReporter implements Reporter {
  private filtered = false;

  onInit({ config }: Vitest): void {
    this.filtered = config.testNamePattern !== undefined;
  }

  onTestRunEnd(modules: readonly TestModule[]): void {
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    const count = (state: string): number => tests.filter((test) => test.result().state === state).length;
    // With -t, what the pattern does not match is skipped too, and is none of ours to explain.
    const skipped = tests
      .filter((test) => test.result().state === 'skipped')
      .map(skipOf)
      .filter(({ reason }) => !this.filtered || reason !== NO_REASON);
    const brokenModules = modules.filter((module) => module.state() === 'failed' && module.errors().length > 0).length;
    recordRun({ passed: count('passed'), failed: count('failed') + brokenModules, skipped });
  }
}

const NO_REASON = 'no reason was given';
const REASON = / \[skipped: (.*)\]$/;

function skipOf(test: TestCase): Skip {
  const result = test.result();
  const file = test.module.relativeModuleId;
  let suite = test.parent;
  let reason = result.state === 'skipped' ? result.note : undefined;
  let what = test.fullName;
  for (; suite.type === 'suite'; suite = suite.parent) {
    const match = REASON.exec(suite.name);
    if (!match) continue;
    reason ??= match[1];
    what = suite.fullName.replace(REASON, '');
  }
  return { what: `${file}: ${what}`, reason: reason ?? NO_REASON, tests: 1 };
}
