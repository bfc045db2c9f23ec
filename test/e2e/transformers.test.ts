import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Bridge, inspect, type Parent, type PlanFile, plan, readParent, slice } from "../../src/index.js";
import { readArchitecture } from "../../src/policy/architecture.js";
import { findPython } from "../../src/shim/python.js";
import { type Config, temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";
import { everyAxis, randomScores, relativeDifference } from "../fixtures/cutting.js";
import { IMPLIED_HEADS, NETWORKS, TINY } from "../fixtures/families.js";
import { type Reference, spelledOut, startReference } from "../fixtures/reference.js";

const SAVE = join(dirname(fileURLToPath(import.meta.url)), "..", "fixtures", "save_pretrained.py");
let bridge: Bridge;
let reference: Reference;

beforeAll(async () => {
  bridge = await Bridge.spawn();
  reference = startReference();
});
afterAll(async () => {
  await reference?.stop();
  await bridge?.close();
});

function planOf(parent: Parent, exportConfig: unknown): PlanFile {
  return plan(parent, exportConfig, { scores: randomScores(parent.checkpoint.config, 3), path: "planted" });
}

/** Cuts and compares with the parent as the reference loads it: from `native`, where that is another folder. */
async function expectCutRight(parent: Parent, exportConfig: unknown, native = parent.checkpoint.dir): Promise<string> {
  const child = join(await temporaryFolder(), "child");
  const made = planOf(parent, exportConfig);
  await slice(bridge, parent, made, child);
  const masked = !["nemotron", "bert", "gptj"].includes(parent.architecture.table.family);
  expect(await reference.check({ parent: native, child, kept: spelledOut(parent, made), masked })).toBe("ok");
  return child;
}

describe("a checkpoint that transformers saved", () => {
  let saved: string;
  beforeAll(async () => {
    saved = await mkdtemp(join(tmpdir(), "prunebridge-saved-"));
    await execa(findPython(), [SAVE], { input: JSON.stringify({ configs: { ...NETWORKS, ...IMPLIED_HEADS }, out: saved }) });
  });
  afterAll(() => rm(saved, { recursive: true, force: true }));

  it.each(Object.entries({ ...NETWORKS, ...IMPLIED_HEADS }))(
    "%s is read and cut as it is shared and as its modules have it",
    async (name, config) => {
      const { layouts, live } = readArchitecture(config).table;
      for (const [folder, layout] of [
        ["hub", layouts[0]?.name],
        ["modules", live],
      ] as const) {
        const parent = await readParent(join(saved, name, folder));
        expect(parent.matched?.layout).toBe(layout);
        expect(parent.checkpoint.headers.length).toBeGreaterThan(1);
        expect(parent.architecture.hyperparameters).toEqual(readArchitecture(config).hyperparameters);
        await expectCutRight(parent, everyAxis(config));
      }
    },
  );
});

describe("a hybrid's config from before transformers knew the family", () => {
  const { layers_block_type: _, head_dim, ...rest }: Config = TINY.nemotronH;
  const older: Config = { ...rest, num_hidden_layers: 6, hybrid_override_pattern: "M-EM*E", attention_head_dim: head_dim };

  /** Written as older code wrote it; `native` has the same weights under a config that transformers reads. */
  async function writeBoth(): Promise<{ parent: Parent; native: Parent }> {
    const dir = await temporaryFolder();
    const paths = [
      await writeCheckpoint(join(dir, "older"), older, { most: 0.5 }),
      await writeCheckpoint(join(dir, "native"), { ...older, head_dim }, { most: 0.5 }),
    ] as const;
    for (const path of paths) {
      const text = await readFile(join(path, "config.json"), "utf8");
      await writeFile(join(path, "config.json"), text.replace("{", '{\n  "time_step_limit": [0.0, Infinity],'));
    }
    return { parent: await readParent(paths[0]), native: await readParent(paths[1]) };
  }

  it("is read, and its child loads in transformers", async () => {
    const { parent, native } = await writeBoth();
    expect(parent.architecture.hyperparameters).toMatchObject({ num_layers: 6, kv_channels: 8 });
    const child = await expectCutRight(parent, everyAxis(older), native.checkpoint.dir);
    expect(await readFile(join(child, "config.json"), "utf8")).toContain('"time_step_limit": [0.0, Infinity]');
    expect((await inspect(child)).hyperparameters).toMatchObject({ num_layers: 5, kv_channels: 8 });
  });

  it("makes the same child live", async () => {
    const { parent, native } = await writeBoth();
    const child = await expectCutRight(parent, everyAxis(older), native.checkpoint.dir);
    await using stored = await bridge.open(child);
    await using model = await bridge.open(native);
    model.prune(planOf(native, everyAxis(older)));
    const ids = [[3, 1, 4, 1, 5, 9, 2, 6]];
    expect(relativeDifference(await model.forward(ids), await stored.forward(ids))).toBeLessThan(1e-5);
  });
});
