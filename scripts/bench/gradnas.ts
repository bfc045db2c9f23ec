// What gradients of masks cost: passes with a mask on every head and FFN channel, against forward and backward passes of the same batches
// without any, alternating in one run.
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { encodeSafetensors } from "../../src/checkpoint/writeSafetensors.js";
import { drawBatches } from "../../src/data/toBatches.js";
import { Bridge, python } from "../../src/index.js";
import { maskPoints } from "../../src/policy/gradients/masks.js";
import { formatTable } from "../../src/tables.js";
import { bytesOf, type Tensor } from "../../src/tensor.js";

const [folder = ".demo", device = "auto"] = process.argv.slice(2);
const ROUNDS = 5;
const SHAPES = [
  { batchSize: 2, seqLength: 256 },
  { batchSize: 8, seqLength: 64 },
];
const MODELS = [
  { name: "SmolLM2-135M", dir: join(folder, "smollm2-135m"), loss: "causal_lm" },
  { name: "BERT-base", dir: join(folder, "bert-base-random"), loss: "masked_lm" },
] as const;

const scratch = await mkdtemp(join(tmpdir(), "prunebridge-bench-"));
const file = join(scratch, "batches.safetensors");
const [, bert] = MODELS;
if (!existsSync(join(bert.dir, "model.safetensors"))) {
  execFileSync(process.env["PRUNEBRIDGE_PYTHON"] ?? "python3", [join(import.meta.dirname, "gradnas_passes.py"), bert.dir]);
}
const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

await using bridge = await Bridge.spawn({
  allowPython: ["gradnas_passes"],
  env: { PYTHONPATH: import.meta.dirname, GRADNAS_BATCHES: file },
});
const rows: string[][] = [
  ["model", "batch x sequence", "masks, s", "weights, s", "activations, s", "masks / weights", "masks / activations"],
];
for (const { name, dir, loss } of MODELS) {
  await using model = await bridge.open(dir, { device, dtype: "float32" });
  const masks = maskPoints(model.parent.architecture);
  for (const { batchSize, seqLength } of SHAPES) {
    const data = bytesOf(BigInt64Array.from({ length: batchSize * seqLength }, (_, i) => BigInt((i * 7919) % 30_000)));
    const ids: Tensor = { dtype: "I64", shape: [batchSize, seqLength], data };
    await writeFile(file, encodeSafetensors([{ ...ids, name: "input_ids", shape: [1, ...ids.shape] }], {}));
    const seconds: Record<"masks" | "weights" | "activations", number[]> = { masks: [], weights: [], activations: [] };
    for (let round = -1; round < ROUNDS; round++) {
      const source = drawBatches([{ input_ids: ids, labels: ids }]);
      const { collected } = await model.collectGradients({ masks, source, loss });
      const weights = await model.score(python("gradnas_passes:trained"));
      const activations = await model.score(python("gradnas_passes:frozen"));
      // The first round warms up.
      if (round < 0) continue;
      seconds.masks.push(collected.passSeconds);
      seconds.weights.push(weights);
      seconds.activations.push(activations);
    }
    const ratioTo = (others: readonly number[]): string =>
      median(seconds.masks.map((value, round) => value / (others[round] ?? Number.NaN))).toFixed(2);
    const medians = [seconds.masks, seconds.weights, seconds.activations].map((values) => median(values).toFixed(3));
    rows.push([
      `${name}, ${masks.length} masks`,
      `${batchSize} x ${seqLength}`,
      ...medians,
      ratioTo(seconds.weights),
      ratioTo(seconds.activations),
    ]);
  }
}
await rm(scratch, { recursive: true });
const used = bridge.shim.devices[0];
console.log(
  `float32, medians of ${ROUNDS} alternating rounds on ${used?.description || used?.name} (${cpus()[0]?.model}, ${cpus().length} threads)\n`,
);
console.log(formatTable(rows));
console.log(
  "\nweights: all weights have gradients, as in training; activations: they alone have, from the embeddings on\ngoal: 1.30 of weights",
);
