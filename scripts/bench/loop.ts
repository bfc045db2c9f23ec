// What it costs to drive a calibration from TypeScript: the same batches read by the shim itself, driven by a forward loop, and drawn from a
// data loader, alternating in one run.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { encodeSafetensors } from "../../src/checkpoint/writeSafetensors.js";
import { Bridge, type CollectSource, python } from "../../src/index.js";
import { hookPoints } from "../../src/policy/scores.js";
import { formatTable } from "../../src/tables.js";
import { bytesOf } from "../../src/tensor.js";

const [folder = ".demo", device = "auto"] = process.argv.slice(2);
const ROUNDS = 9;
const SHAPES = [
  { count: 8, batchSize: 2, seqLength: 128 },
  { count: 32, batchSize: 1, seqLength: 16 },
];

const scratch = await mkdtemp(join(tmpdir(), "prunebridge-bench-"));
const file = join(scratch, "batches.safetensors");
await using bridge = await Bridge.spawn({
  allowPython: ["loop_loader:batches"],
  env: { PYTHONPATH: dirname(fileURLToPath(import.meta.url)), LOOP_BATCHES: file },
});
const model = await bridge.open(join(folder, "smollm2-135m"), {
  device,
  dtype: device === "cpu" || device === "auto" ? "float32" : "auto",
});
const hooks = hookPoints(model.parent.architecture);
const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

const rows: (string | number)[][] = [["batches x batch x sequence", "source", "seconds", "against the shim's own"]];
for (const { count, batchSize, seqLength } of SHAPES) {
  const ids = Array.from({ length: count }, (_, batch) =>
    BigInt64Array.from({ length: batchSize * seqLength }, (_, i) => BigInt(((batch * batchSize * seqLength + i) * 7919) % 40_000)),
  );
  const data = Buffer.concat(ids.map(bytesOf));
  await writeFile(file, encodeSafetensors([{ name: "input_ids", dtype: "I64", shape: [count, batchSize, seqLength], data }], {}));
  const batches = ids.map((batch) => ({ input_ids: { dtype: "I64" as const, shape: [batchSize, seqLength], data: bytesOf(batch) } }));
  const sources: Record<string, CollectSource> = {
    "Python data loader": { dataLoader: python("loop_loader:batches") },
    "TypeScript forward loop": async (looped) => {
      for (const batch of batches) await looped.forward(batch);
    },
    "TypeScript data loader": batches,
  };
  const seconds = new Map(Object.keys(sources).map((name) => [name, [] as number[]]));
  for (let round = -1; round < ROUNDS; round++) {
    for (const [name, source] of Object.entries(sources)) {
      const began = performance.now();
      await model.collect(hooks, source);
      // The first round warms up.
      if (round >= 0) seconds.get(name)?.push((performance.now() - began) / 1000);
    }
  }
  const own = seconds.get("Python data loader") ?? [];
  for (const [name, measured] of seconds) {
    const ratio = median(measured.map((value, round) => value / (own[round] ?? Number.NaN)));
    rows.push([`${count} x ${batchSize} x ${seqLength}`, name, median(measured).toFixed(3), ratio.toFixed(3)]);
  }
}
await rm(scratch, { recursive: true });
const used = bridge.shim.devices[0];
console.log(
  `SmolLM2-135M, ${hooks.length} hook points, medians of ${ROUNDS} alternating rounds on ${used?.description || used?.name} (${cpus()[0]?.model}, ${cpus().length} threads)\n`,
);
console.log(formatTable(rows));
console.log("\ngoal: 1.05");
