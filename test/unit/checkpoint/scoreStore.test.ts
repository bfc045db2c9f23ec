import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ScoreStore } from "../../../src/checkpoint/scoreStore.js";
import type { ScoreFile } from "../../../src/index.js";
import { temporaryFolder } from "../../fixtures/checkpoints.js";

const NETWORK = "sha256:1";
const OPTIONS = { dtype: "float32", checkpointEvery: "32" };
const scores = (fingerprint: string | undefined = NETWORK): ScoreFile => ({
  accumulators: new Map([["layer_scores", { shape: [2], data: Float32Array.of(0.1, 1e-30) }]]),
  fingerprint,
  provenance: { batches: "2" },
});

describe("ScoreStore", () => {
  it("gives scores as they are kept, with what they were measured with", async () => {
    const store = new ScoreStore(join(await temporaryFolder(), "new"), NETWORK, OPTIONS);
    expect([await store.read(), await store.readPartial()]).toEqual([undefined, undefined]);
    const kept = await store.writePartial(scores());
    expect(kept).toEqual({ ...scores(), provenance: { batches: "2", ...OPTIONS } });
    expect(await store.readPartial()).toEqual(kept);
    expect(await store.read()).toBeUndefined();
    expect(await store.write(kept)).toEqual(kept);
    expect(await store.read()).toEqual(kept);
    expect(await store.readPartial()).toBeUndefined();
  });

  it("keeps no part beside finished scores", async () => {
    const folder = await temporaryFolder();
    const store = new ScoreStore(folder, NETWORK, OPTIONS);
    await store.writePartial(scores());
    expect(await store.write(scores())).toEqual(await store.read());
    expect(await readdir(folder)).toEqual(["scores.safetensors"]);
  });

  it("finishes with its own scores, whatever another run has left beside them", async () => {
    const folder = await temporaryFolder();
    const [one, other] = [new ScoreStore(folder, NETWORK, OPTIONS), new ScoreStore(folder, NETWORK, OPTIONS)];
    const kept = await one.writePartial({ ...scores(), provenance: { batches: "64" } });
    await other.writePartial({ ...scores(), provenance: { batches: "32" } });
    await one.write(kept);
    expect((await one.read())?.provenance).toMatchObject({ batches: "64" });
  });

  it("refuses scores of another network, and names the file", async () => {
    const folder = await temporaryFolder();
    await new ScoreStore(folder, "sha256:2", {}).writePartial(scores("sha256:2"));
    const store = new ScoreStore(folder, NETWORK, OPTIONS);
    const refusal = { code: "BAD_SCORES", detail: expect.stringMatching(/partial.safetensors holds the scores of another checkpoint/) };
    await expect(store.readPartial()).rejects.toMatchObject(refusal);
    await new ScoreStore(folder, "sha256:2", {}).write(scores("sha256:2"));
    await expect(store.read()).rejects.toMatchObject({ code: "BAD_SCORES" });
  });

  it.each([
    [{ ...OPTIONS, dtype: "bfloat16" }, /with dtype float32, not bfloat16/],
    [{ ...OPTIONS, checkpointEvery: "16" }, /with checkpointEvery 32, not 16/],
  ])("refuses scores that were measured otherwise: %j", async (options, says) => {
    const folder = await temporaryFolder();
    await new ScoreStore(folder, NETWORK, OPTIONS).write(scores());
    await expect(new ScoreStore(folder, NETWORK, options).read()).rejects.toMatchObject({
      code: "CHECKPOINT_MISMATCH",
      detail: expect.stringMatching(says),
    });
    expect(await new ScoreStore(folder, NETWORK, {}).read()).toMatchObject({ provenance: OPTIONS });
  });

  it("takes files that say less", async () => {
    const folder = await temporaryFolder();
    await new ScoreStore(folder, undefined, {}).write(scores(undefined));
    expect(await new ScoreStore(folder, NETWORK, OPTIONS).read()).toMatchObject({ accumulators: scores().accumulators });
  });

  it("refuses half a file", async () => {
    const store = new ScoreStore(await temporaryFolder(), NETWORK, OPTIONS);
    await store.write(scores());
    const whole = await readFile(store.path);
    await writeFile(store.path, whole.subarray(0, whole.length - 3));
    await expect(store.read()).rejects.toMatchObject({ code: "BAD_SAFETENSORS" });
  });
});
