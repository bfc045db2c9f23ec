// A checkpoint of 400 GB, all holes: what is done without its data takes no memory and no time for them, and what reads them goes block by block.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, describe, expect, it, type TestContext } from "vitest";
import { Bridge, plan, readParent, readScoreFile, slice } from "../../src/index.js";
import { temporaryFolder } from "../fixtures/checkpoints.js";
import { freeBytes, LLAMA_405B, writeRandomScores, writeSparseCheckpoint } from "../fixtures/sparse.js";

const MB = 1e6;
const GB = 1e9;
const CANCELLED_AFTER = 1 * GB;

let dir: string;
beforeEach(async () => {
  dir = await temporaryFolder();
});

async function sparseParent(context: TestContext): Promise<string> {
  const parent = await writeSparseCheckpoint(join(dir, "parent"), LLAMA_405B);
  if (parent === undefined) return context.skip("the file system of the temporary folder stores no holes");
  return parent;
}

async function readField(path: string, field: string): Promise<number> {
  return Number(new RegExp(`^${field}:\\s+(\\d+)`, "m").exec(await readFile(path, "utf8"))?.[1]);
}

describe.skipIf(process.platform !== "linux")("a checkpoint of 400 GB", () => {
  it("is inspected and planned for from its headers, whatever ranks it", async (context) => {
    const path = await sparseParent(context);
    const scores = await readScoreFile(await writeRandomScores(join(dir, "scores.safetensors"), LLAMA_405B));
    const before = await readField("/proc/self/io", "rchar");
    const parent = await readParent(path);
    const bytes = parent.checkpoint.tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
    expect(bytes).toBeGreaterThan(400 * GB);
    const target = { num_layers: 100, hidden_size: 12288, ffn_hidden_size: 40960, num_attention_heads: 96 };
    for (const rankBy of ["position", { scores, path: "random" }] as const) {
      const made = plan(parent, target, rankBy);
      expect(made.parent.params).toBe(405_853_388_800);
      expect(made.kept.hidden).toHaveLength(12288);
    }
    const read = (await readField("/proc/self/io", "rchar")) - before;
    expect(read).toBeLessThan(20 * MB);
  });

  it("is cut block by block, and a cut that is cancelled leaves nothing under the child's name", async (context) => {
    const parent = await readParent(await sparseParent(context));
    const made = plan(parent, { num_layers: 3, hidden_size: 12288, ffn_hidden_size: 40960, num_attention_heads: 96 }, "position");
    if ((await freeBytes(dir)) < 20 * GB) context.skip("the temporary folder has less room than the child would take");
    await using bridge = await Bridge.spawn();
    const idle = await readField(`/proc/${bridge.pid}/status`, "VmRSS");
    const cancel = new AbortController();
    const cutting = slice(bridge, parent, made, join(dir, "child"), {
      signal: cancel.signal,
      onProgress: ({ done }) => done > CANCELLED_AFTER && cancel.abort(),
    });
    await expect(cutting).rejects.toMatchObject({ code: "CANCELLED" });
    const peak = await readField(`/proc/${bridge.pid}/status`, "VmHWM");
    expect((peak - idle) * 1024).toBeLessThan(120 * MB);
    expect(await readdir(dir)).not.toContain("child");
  }, 120_000);
});
