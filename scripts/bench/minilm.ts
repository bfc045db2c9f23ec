// What gradients of masks find: a sentence encoder (all-MiniLM-L6-v2) at 70% of its flops, by its embeddings of held-back sentences.

import { existsSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { ProgressBar } from "../../src/cli/progressBar.js";
import { asFloat32, Bridge, formatTable, type PlanFile, prune, readScoreFile, readWeightedParent, slice } from "../../src/index.js";
import { planByGradients } from "../../src/policy/gradients/plan.js";
import { gradientSpace } from "../../src/policy/gradients/space.js";
import { cutterBy, layerSizes } from "../../src/policy/gradients/unitCuts.js";
import { gradnasOptions, unitRules } from "../../src/policy/modes/gradnasOptions.js";
import { alongDirections, batchesOf, embed, type Nearness, nearness, type Sentences } from "./lib/embeddings.js";
import { mulberry32 } from "./lib/random.js";

const [folder = ".demo", share = "70%"] = process.argv.slice(2);
const dir = join(folder, "minilm");
const BATCHES = 128;
const SENTENCES = 16;
const HELD_OUT = 512;
const child = join(folder, "minilm-child");
const DUMMY = [Array.from({ length: 32 }, () => 100)];
const OPTIONS = gradnasOptions.parse({});
const BASELINES = { "largest weights": ["weight-norms"], "at random (mean of 3)": ["random-0", "random-1", "random-2"] };

// Written last.
if (!existsSync(join(dir, "random-2.safetensors"))) {
  const script = join(dirname(fileURLToPath(import.meta.url)), "minilm_inputs.py");
  await execa(process.env["PRUNEBRIDGE_PYTHON"] ?? "python3", [script, folder, dir], { env: { HF_HUB_OFFLINE: "1" } });
}

async function sentences(name: string, count: number): Promise<Sentences[]> {
  const all = JSON.parse(await readFile(join(dir, `${name}.json`), "utf8")) as number[][];
  const step = all.length / count; // spread over the whole file
  return batchesOf(
    Array.from({ length: count }, (_, i) => all[Math.floor(i * step)] ?? []),
    SENTENCES,
  );
}

using bar = new ProgressBar();
await using bridge = await Bridge.spawn();
const parent = await readWeightedParent(dir);
const heldOut = await sentences("held-out", HELD_OUT);

type Embeddings = ReturnType<typeof embed>;

async function embeddingsBy(checkpoint: string): Promise<Embeddings> {
  await using encoder = await bridge.load({ checkpoint, dtype: "float32" });
  const all: Embeddings = [];
  for (const batch of heldOut) {
    const { last_hidden_state } = await encoder.forward(batch);
    if (last_hidden_state) all.push(...embed(asFloat32(last_hidden_state), batch));
  }
  return all;
}

async function judge(plan: PlanFile): Promise<Nearness> {
  await rm(child, { recursive: true, force: true });
  await slice(bridge, parent, plan, child, { flush: false });
  return nearness(await embeddingsBy(child), expected);
}

const expected = await embeddingsBy(dir);
await using model = await bridge.open(parent, { dtype: "float32" });
const { stateDict } = await prune(model, "gradnas", { flops: share }, DUMMY, {
  lossFunc: alongDirections(mulberry32(1)),
  dataLoader: await sentences("calibration", BATCHES * SENTENCES),
  maxIterDataLoader: BATCHES,
  checkpoint: join(folder, "minilm-gradients"), // another share needs no second pass
  onProgress: bar.update,
});
const { best, costs, plan } = stateDict;

/** The same sizes of every layer, of units that other scores rank highest. */
async function sameSizes(name: string): Promise<PlanFile> {
  const space = gradientSpace(parent.architecture, unitRules(OPTIONS), false);
  const cutter = cutterBy(space, (await readScoreFile(join(dir, `${name}.safetensors`))).accumulators);
  const layers = layerSizes(space, best.sizes, (one, count) => cutter(one, count).sizes);
  const found = { selection: best.sizes, layers, cutter, costs: costs.child, score: 0, sensitivityMap: {} };
  return { ...planByGradients(space, parent.checkpoint.config, found), fingerprint: parent.fingerprint ?? null };
}

const row = (name: string, { cosine, pairs }: Nearness): string[] => [name, cosine.toFixed(4), pairs.toFixed(4)];
const rows = [row("gradients of masks", await judge(plan))];
for (const [name, files] of Object.entries(BASELINES)) {
  const all: Nearness[] = [];
  for (const file of files) all.push(await judge(await sameSizes(file)));
  const mean = (of: keyof Nearness): number => all.reduce((sum, one) => sum + one[of], 0) / all.length;
  rows.push(row(name, { cosine: mean("cosine"), pairs: mean("pairs") }));
}
await rm(child, { recursive: true, force: true });

bar[Symbol.dispose]();
const percent = (100 * costs.child.flops) / costs.parent.flops;
console.log(
  [
    `all-MiniLM-L6-v2 at ${percent.toFixed(1)}% of its flops, no retraining; ${HELD_OUT} held-back sentences against the parent`,
    formatTable([["kept by", "mean cosine", "rank correlation of pairs"], ...rows]),
    formatTable([
      ["layer", "FFN channels", "heads"],
      ...(plan.layers ?? []).map(({ ffn_hidden_size, num_attention_heads }, layer) => [layer, ffn_hidden_size, num_attention_heads]),
    ]),
    `gradients over ${BATCHES} batches of ${SENTENCES} sentences: ${stateDict.timings.calibration.toFixed(0)} s; the search: ${(1000 * stateDict.timings.search).toFixed(0)} ms`,
  ].join("\n\n"),
);
