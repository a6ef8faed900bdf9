import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    pool: 'forks',
    // Files run beside one another on every core; unasked, one core would be left idle.
    maxWorkers: '100%',
    // Models of tests are small; their threads are to meet all the same.
    env: { CQIL_ALONE_BYTES: '0' },
    globalSetup: ['test/support/addon_built.ts', 'test/support/cache_folder.ts'],
    reporters: ['default', './test/support/skip_reporter.ts'],
  },
});
