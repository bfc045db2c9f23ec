import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { hashPlan, type PlanFile, readPlanFile, writePlanFile } from "../../../src/checkpoint/planFile.js";
import { formatRanges, parseRanges, positionsOf } from "../../../src/checkpoint/ranges.js";
import { readParent } from "../../../src/inspect.js";
import { outline, plan, readPlanFor } from "../../../src/plan.js";
import { TINY_LLAMA, temporaryFolder, writeCheckpoint } from "../../fixtures/checkpoints.js";

describe("ranges", () => {
  it("survive a round trip", () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(200), { minLength: 1 }), (set) => {
        const positions = set.sort((a, b) => a - b);
        expect(positionsOf(parseRanges(formatRanges(positions), 201) ?? [])).toEqual(positions);
      }),
    );
  });

  it.each(["", "3-1", "1,1", "2,1", "0-5,5", "1-", "-1", "1.5", "0-999999999"])("%j is refused", (text) => {
    expect(parseRanges(text, 100)).toBeUndefined();
  });
});

async function made(): Promise<{ dir: string; path: string; written: PlanFile }> {
  const dir = await temporaryFolder();
  const parent = await readParent(await writeCheckpoint(join(dir, "parent")));
  const written = plan(parent, { ffn_hidden_size: 16, num_attention_heads: 2, num_query_groups: 2, num_layers: 2 }, "position");
  const path = join(dir, "plan.json");
  await writePlanFile(path, written);
  return { dir, path, written };
}

describe("a plan file", () => {
  it("reads back as it was written, with the same hash", async () => {
    const { path, written } = await made();
    const read = await readPlanFile(path);
    expect(read).toEqual(written);
    expect(hashPlan(read)).toBe(hashPlan(written));
  });

  it("is accepted for its parent", async () => {
    const { dir, path, written } = await made();
    expect(await readPlanFor(await readParent(join(dir, "parent")), path)).toEqual(written);
  });

  it("can be made from a bare config", async () => {
    const dir = await temporaryFolder();
    await writeFile(join(dir, "config.json"), JSON.stringify(TINY_LLAMA));
    const bare = await readParent(join(dir, "config.json"));
    expect(plan(bare, { ffn_hidden_size: 16 }, "position")).toMatchObject({ fingerprint: null, kept: { ffn: {} } });
    expect(outline(bare, { ffn_hidden_size: 16 }).child.params).toBeLessThan(outline(bare, { ffn_hidden_size: 16 }).parent.params);
  });

  it("is refused for another parent", async () => {
    const { dir, path } = await made();
    const other = await readParent(await writeCheckpoint(join(dir, "other"), { ...TINY_LLAMA, rope_theta: 5e5 }));
    await expect(readPlanFor(other, path)).rejects.toThrow(/another checkpoint/);
  });

  it.each([
    [
      "a kept position beyond the parent",
      (text: string) => text.replace('"0": "0-15"', '"0": "0-14,40"'),
      /ffn of 0 keeps position 40 of 40/,
    ],
    ["too few positions", (text: string) => text.replace('"0": "0-15"', '"0": "0-14"'), /ffn of 0 keeps 15 positions, the child has 16/],
    ["a layer without its set", (text: string) => text.replace('"0": "0-15"', '"2": "0-15"'), /ffn has no entry for layer 0/],
    ["a dimension that is not cut", (text: string) => text.replace('"kept": {', '"kept": { "hidden": "0-5",'), /hidden keeps 6 positions/],
    ["a malformed range", (text: string) => text.replace('"0": "0-15"', '"0": "15-0"'), /not a list of ascending ranges/],
    [
      "another export_config",
      (text: string) => text.replace('"ffn_hidden_size": 16,\n    "num_attention', '"ffn_hidden_size": 17,\n    "num_attention'),
      /the child's hyperparameters/,
    ],
    ["an unknown field", (text: string) => text.replace('"mode"', '"extra": 1, "mode"'), /extra/],
    [
      "a config that does not follow",
      (text: string) => text.replace('"intermediate_size": 16', '"intermediate_size": 18'),
      /config fields do not follow/,
    ],
  ])("is refused with %s", async (_what, spoil, message) => {
    const { dir, path } = await made();
    const text = await readFile(path, "utf8");
    expect(spoil(text)).not.toBe(text);
    await writeFile(path, spoil(text));
    await expect(readParent(join(dir, "parent")).then((parent) => readPlanFor(parent, path))).rejects.toThrow(message);
  });
});
