import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { HistoryEntry } from "../../../src/checkpoint/searchState.js";
import { SearchMemory } from "../../../src/pruning/searchMemory.js";
import { temporaryFolder } from "../../fixtures/checkpoints.js";

const NETWORK = "sha256:1";
const SIZES = { num_layers: 2, hidden_size: 16, num_attention_heads: 4 };
const entry = (params: number): HistoryEntry => ({
  constraints: { params },
  exportConfig: SIZES,
  params,
  spaceSize: 6,
  feasible: 3,
  score: -1 / 3,
});

describe("what a search found", () => {
  it("is there for the next run, to the last bit", async () => {
    const folder = join(await temporaryFolder(), "made", "for it");
    const memory = await SearchMemory.open(folder, NETWORK);
    const costs = { active_params: 1, params: 2, memory_mb: 0.1, flops: 1e20 };
    memory.propose([{ exportConfig: SIZES, costs }]);
    await memory.record("a", SIZES, -1 / 3, 0.5);
    await memory.record("b", SIZES, 1e-300, 0.5);

    const next = await SearchMemory.open(folder, NETWORK);
    expect(next.recall("a", SIZES)).toBe(-1 / 3);
    expect(next.recall("b", { hidden_size: 16, num_attention_heads: 4, num_layers: 2 })).toBe(1e-300);
    expect(next.recall("c", SIZES)).toBeUndefined();
    expect(next.recall("a", { ...SIZES, num_layers: 3 })).toBeUndefined();
    expect(next.recall("a", { ...SIZES, ffn_hidden_size: 8 })).toBeUndefined();
    const { candidates } = JSON.parse(await readFile(join(folder, "search.json"), "utf8"));
    expect(candidates).toEqual([{ exportConfig: SIZES, costs }]);
    expect(await readdir(folder)).toEqual(["search.json"]);
  });

  it("is forgotten after the run where there is no folder", async () => {
    const memory = await SearchMemory.open(undefined, NETWORK);
    await memory.record("a", SIZES, 1, 0);
    expect(memory.recall("a", SIZES)).toBe(1);
    expect((await SearchMemory.open(undefined, NETWORK)).recall("a", SIZES)).toBeUndefined();
  });
});

describe("the history", () => {
  it("has every run once, the last one at the end, whoever wrote it", async () => {
    const folder = await temporaryFolder();
    for (const params of [1, 1, 2, 2, 1]) {
      const memory = await SearchMemory.open(folder, NETWORK);
      await memory.conclude(entry(params));
      expect(memory.history.at(-1)).toEqual(entry(params));
    }
    expect((await SearchMemory.open(folder, NETWORK)).history).toEqual([entry(1), entry(2), entry(1)]);
  });
});

describe("a folder", () => {
  it("of another network is refused", async () => {
    const folder = await temporaryFolder();
    await (await SearchMemory.open(folder, NETWORK)).conclude(entry(1));
    await expect(SearchMemory.open(folder, "sha256:2")).rejects.toMatchObject({
      code: "CHECKPOINT_MISMATCH",
      detail: expect.stringMatching(/another network \(sha256:1, not sha256:2\)/),
    });
  });

  it.each([
    ["half a file", (text: string) => text.slice(0, text.length / 2), /is not JSON/],
    ["another file", () => '{"format": "prunebridge.plan/1"}', /is no search state/],
    ["no object", () => "[]", /must hold a JSON object/],
    ["a score that is no number", (text: string) => text.replace('"score": 1', '"score": null'), /scored\[0\].score/],
  ])("with %s is refused", async (_what, spoil, says) => {
    const folder = await temporaryFolder();
    await (await SearchMemory.open(folder, NETWORK)).record("a", SIZES, 1, 0);
    const path = join(folder, "search.json");
    await writeFile(path, spoil(await readFile(path, "utf8")));
    await expect(SearchMemory.open(folder, NETWORK)).rejects.toMatchObject({
      code: "CHECKPOINT_MISMATCH",
      detail: expect.stringMatching(says),
    });
  });
});
