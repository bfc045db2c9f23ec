import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Bridge, type OpenedModel, type Parent, type PlanFile, plan, readParent, slice, type Tensor, verify } from "../../src/index.js";
import { readArchitecture } from "../../src/policy/architecture.js";
import type { LayoutName } from "../../src/policy/families/table.js";
import { type Config, temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";
import { eachAxis, everyAxis, randomScores, relativeDifference } from "../fixtures/cutting.js";
import { IMPLIED_HEADS, NETWORKS } from "../fixtures/families.js";
import { type Reference, spelledOut, startReference } from "../fixtures/reference.js";

const SOAK = process.env["PRUNEBRIDGE_SOAK"] === "1";

/** Cuts of each axis and of all at once, in each layout; outside of a soak each axis alone in one of the layouts, in turn. */
const CASES = Object.entries({ ...NETWORKS, ...IMPLIED_HEADS }).flatMap(([family, config]) => {
  const alone = eachAxis(config).map((exportConfig) => ({ cut: Object.keys(exportConfig)[0], exportConfig }));
  const together = { cut: "every axis", exportConfig: everyAxis(config) };
  const layouts = readArchitecture(config)
    .table.layouts.map(({ name }) => name)
    .filter((name) => name !== "megatron"); // which transformers does not read
  return layouts.flatMap((layout, at) =>
    [...alone.filter((_, i) => SOAK || i % layouts.length === at), together].map((one) => ({ family, config, layout, ...one })),
  );
});

const PROBE = [0, 1].map((row) => Array.from({ length: 12 }, (_, position) => (5 * row + 7 * position) % 40));
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

interface Cutting {
  readonly parent: Parent;
  readonly child: string;
  readonly plan: PlanFile;
}

async function cut(config: Config, layout: LayoutName, exportConfig: unknown): Promise<Cutting> {
  const dir = await temporaryFolder();
  const parent = await readParent(await writeCheckpoint(join(dir, "parent"), config, { layout, files: 2, most: 0.5 }));
  const made = plan(parent, exportConfig, { scores: randomScores(config, 7), path: "planted" });
  const child = join(dir, "child");
  await slice(bridge, parent, made, child);
  await verify(child);
  return { parent, child, plan: made };
}

describe.each(CASES)("$family, $layout: a cut of $cut", ({ family, config, layout, exportConfig }) => {
  // A LayerNorm subtracts the mean of all hidden channels, which zeros among them move; BERT's layers have theirs on the residual path.
  const layerNorms = ["nemotron", ...Object.keys(IMPLIED_HEADS)].includes(family) && "hidden_size" in exportConfig;
  const masked = !layerNorms && !(family.startsWith("bert") && "num_layers" in exportConfig);

  it("is the parent indexed, computes what the parent does without what goes, and is the same live", async () => {
    const { parent, child, plan: made } = await cut(config, layout, exportConfig);
    expect(parent.matched?.layout).toBe(layout);
    expect(await reference.check({ parent: parent.checkpoint.dir, child, kept: spelledOut(parent, made), masked })).toBe("ok");

    const run = async (model: Pick<OpenedModel, "outputs">): Promise<Tensor> => {
      const { logits, last_hidden_state } = await model.outputs(PROBE);
      return logits ?? (last_hidden_state as Tensor); // an encoder without a head
    };
    await using stored = await bridge.open(child);
    const expected = await run(stored);
    await using model = await bridge.open(parent);
    {
      await using view = await model.view(made);
      expect(relativeDifference(await run(view), expected)).toBeLessThan(1e-5);
    }
    model.prune(made);
    expect(relativeDifference(await run(model), expected)).toBeLessThan(1e-5);
  });
});
