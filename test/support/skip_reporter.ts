import type { Reporter, TestCase, TestModule } from 'vitest/node';
import { recordRun, type Skip } from '../../scripts/skips.mjs';

/** Counts the tests that did not run, and says why: as `describeUnless` puts it into a suite's name, or as a test's own `skip(reason)`. */
export default class SkipReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    const count = (state: string): number => tests.filter((test) => test.result().state === state).length;
    // A test that was filtered out by its name is none of ours to explain.
    const skipped = tests.filter((test) => test.result().state === 'skipped').map(skipOf);
    const brokenModules = modules.filter((module) => module.state() === 'failed' && module.errors().length > 0).length;
    recordRun({ passed: count('passed'), failed: count('failed') + brokenModules, skipped });
  }
}

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
  return { what: `${file}: ${what}`, reason: reason ?? 'no reason was given', tests: 1 };
}
