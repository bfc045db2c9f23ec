import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Two processes that run torch want two cores.
    maxWorkers: 2,
    // Tiny models on several threads each spend their time waiting for one another.
    env: { OMP_NUM_THREADS: "1" },
    globalSetup: "test/fixtures/buildCli.ts",
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
