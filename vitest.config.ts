import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    environment: 'node',
    globalSetup: ['test/chromium.ts'],
    pool: 'forks',
    testTimeout: 20_000,
    hookTimeout: 20_000,
    sequence: { shuffle: true },
  },
});
