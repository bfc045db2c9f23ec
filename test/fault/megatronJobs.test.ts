// Ranks of jobs that are lost in the middle of scoring: what the caller sees, and what the other ranks do.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { Bridge, score } from "../../src/index.js";
import { failureOf } from "../fixtures/failures.js";
import { TOKENS } from "../fixtures/listeners.js";
import { endlessBatches, Jobs } from "../fixtures/megatronJobs.js";

// That of the jobs, and what a busy machine adds to it.
const BOUND_MS = 12_000 + 3_000;

const SERVING = { parent: "llama-gqa", how: "serve", ranks: 4, tp: 2, pp: 2 } as const;
let jobs: Jobs;

beforeAll(async () => {
  const folder = await mkdtemp(join(tmpdir(), "prunebridge-test-"));
  jobs = await Jobs.start(folder, { killed: SERVING, stopped: { ...SERVING, how: "step_until_lost" } });
}, 120_000);
afterAll(async () => {
  await jobs.end();
  await rm(jobs.folder, { recursive: true, force: true });
}, 60_000);

describe("a job that loses a rank while it is scored", () => {
  it.each([
    ["killed", "SIGKILL", 3],
    ["stopped", "SIGSTOP", 1],
  ] as const)("by being %s tells which, and all others return to the job", async (name, signal, victim) => {
    const { address, pids } = await jobs.ready(name);
    const live = await Bridge.attach(address, { token: TOKENS.change });
    onTestFinished(() => live[Symbol.asyncDispose]());
    const model = await live.attachedModel();
    let struck = 0;
    const strike = (): void => {
      struck = performance.now();
      process.kill(pids[victim] ?? 0, signal);
    };
    const { error } = await failureOf(score(model, model.parent, endlessBatches("llama-gqa", strike)));
    expect(performance.now() - struck).toBeLessThan(BOUND_MS);
    expect(error).toMatchObject({ code: "RANK_LOST", detail: expect.stringMatching(new RegExp(`rank ${victim}\\b`)) });
    for (const rank of [0, 1, 2, 3].filter((one) => one !== victim)) {
      expect(JSON.parse(await jobs.read(`${name}.${rank}.json`))).toMatchObject({ reason: "RANK_LOST" });
    }
  });
});
