// What measuring costs: forward passes of SmolLM2-135M with every hook of Minitron's, against bare ones, alternating in one run.
import { cpus } from "node:os";
import { join } from "node:path";
import { Bridge, packTokens } from "../../src/index.js";
import { hookPoints } from "../../src/policy/scores.js";
import { formatTable } from "../../src/tables.js";

const [folder = ".demo", device = "auto"] = process.argv.slice(2);
const ROUNDS = 7;
const SHAPES = [
  { batchSize: 4, seqLength: 512 },
  { batchSize: 8, seqLength: 128 },
];

await using bridge = await Bridge.spawn();
const model = await bridge.open(join(folder, "smollm2-135m"), {
  device,
  dtype: device === "cpu" || device === "auto" ? "float32" : "auto",
});
const hooks = hookPoints(model.parent.architecture);
const median = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

const rows: (string | number)[][] = [["batch x sequence", "bare, s", "all hooks, s", "ratio"]];
for (const { batchSize, seqLength } of SHAPES) {
  const ids = BigInt64Array.from({ length: 2 * batchSize * seqLength }, (_, i) => BigInt((i * 7919) % 40_000));
  const batches = packTokens(ids, { batchSize, seqLength, samples: 2 * batchSize });
  const seconds = async (measured: typeof hooks): Promise<number> => (await model.collect(measured, batches)).forwardSeconds;
  await seconds(hooks); // warm up
  const [bare, hooked, ratios]: number[][] = [[], [], []];
  for (let round = 0; round < ROUNDS; round++) {
    const [b, h] = [await seconds([]), await seconds(hooks)];
    bare?.push(b);
    hooked?.push(h);
    ratios?.push(h / b);
  }
  rows.push([
    `${batchSize} x ${seqLength}`,
    median(bare ?? []).toFixed(3),
    median(hooked ?? []).toFixed(3),
    median(ratios ?? []).toFixed(3),
  ]);
}
const used = bridge.shim.devices[0];
console.log(
  `SmolLM2-135M, ${hooks.length} hook points, medians of ${ROUNDS} alternating rounds on ${used?.description || used?.name} (${cpus()[0]?.model}, ${cpus().length} threads)\n`,
);
console.log(formatTable(rows));
console.log("\ngoal: 1.10 on a CPU, 1.03 on a GPU");
