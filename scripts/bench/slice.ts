// How fast checkpoints are cut: the engine, cp of what it writes, and the naive way, side by side in one run.
import { existsSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { Bridge, plan, readParent, type ScoreFile, slice, writePlanFile } from "../../src/index.js";
import { formatTable } from "../../src/tables.js";

const ROUNDS = 3;
const TICKS_PER_SECOND = 100;
const TARGET = { hidden_size: 3072, ffn_hidden_size: 9216, num_attention_heads: 24, num_query_groups: 8 };

const [inputs = ".demo"] = process.argv.slice(2);
const python = process.env["PRUNEBRIDGE_PYTHON"] ?? "python3";
const script = join(dirname(fileURLToPath(import.meta.url)), "slice_inputs.py");
const folder = join(inputs, "slice-bench");
const [parentDir, child, copy, naive] = ["parent", "child", "copy", "naive.safetensors"].map((name) => join(folder, name)) as [
  string,
  string,
  string,
  string,
];

if (!existsSync(join(parentDir, "config.json"))) await execa(python, [script, "make", parentDir]);
const parent = await readParent(parentDir);
const made = plan(parent, TARGET, { scores: randomScores(), path: "random" });
await writePlanFile(join(folder, "plan.json"), made);

await using bridge = await Bridge.spawn();
const idle = await memory("VmRSS");
const rows: Record<string, { wall: number[]; cpu: number[] }> = {};
for (let round = 0; round < ROUNDS; round++) {
  await Promise.all([child, copy, naive].map((path) => rm(path, { recursive: true, force: true })));
  const cpuBefore = await cpuSeconds();
  record("engine, flushed and checksummed", await timed(() => slice(bridge, parent, made, child)), (await cpuSeconds()) - cpuBefore);
  record("cp of the child", await timed(() => execa("cp", ["-r", child, copy])));
  record("the same and flush", await timedFlushedCopy());
  const { stdout } = await execa(python, [script, "naive", parentDir, join(folder, "plan.json"), naive]);
  record("load all, index_select, save_file", Number(stdout));
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
const flushed = median(rows["the same and flush"]?.wall ?? []);
console.log(`3.76 GB of bfloat16 in 4 shards cut to ${JSON.stringify(TARGET)}, medians of ${ROUNDS} rounds\n`);
console.log(
  formatTable([
    ["", "wall, s", "CPU, s", "to cp + flush"],
    ...Object.entries(rows).map(([name, { wall, cpu }]) => [
      name,
      median(wall).toFixed(2),
      cpu.length > 0 ? median(cpu).toFixed(2) : "",
      (median(wall) / flushed).toFixed(2),
    ]),
  ]),
);
console.log(`\npeak memory of the shim ${await memory("VmHWM")} MB, ${idle} MB before`);
await rm(folder, { recursive: true, force: true });

function record(name: string, wall: number, cpu?: number): void {
  rows[name] ??= { wall: [], cpu: [] };
  rows[name].wall.push(wall);
  if (cpu !== undefined) rows[name].cpu.push(cpu);
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

async function timedFlushedCopy(): Promise<number> {
  await rm(copy, { recursive: true, force: true });
  return timed(async () => {
    await execa("cp", ["-r", child, copy]);
    await execa("sync", ["--file-system", copy]);
  });
}

/** User and system time of the shim so far (proc(5): fields 14 and 15 of stat). */
async function cpuSeconds(): Promise<number> {
  const stat = await readFile(`/proc/${bridge.pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

async function memory(field: "VmRSS" | "VmHWM"): Promise<number> {
  const status = await readFile(`/proc/${bridge.pid}/status`, "utf8");
  return Math.round(Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1] ?? 0) / 1024);
}

/** Importances without pattern, so that kept channels come in no long runs. */
function randomScores(): ScoreFile {
  const { num_layers, hidden_size, ffn_hidden_size, num_attention_heads, kv_channels } = parent.architecture.hyperparameters;
  const random = (size: number): { shape: number[]; data: Float32Array } => ({
    shape: [size],
    data: Float32Array.from({ length: size }, Math.random),
  });
  const layers = Array.from({ length: num_layers }, (_, layer) => `decoder.layers.${layer}`);
  const accumulators = new Map(
    layers.flatMap((layer) => [
      [`${layer}.mlp`, random(ffn_hidden_size ?? 0)],
      [`${layer}.self_attention`, random(num_attention_heads * kv_channels)],
      [`${layer}.input_layernorm`, random(hidden_size)],
      [`${layer}.pre_mlp_layernorm`, random(hidden_size)],
    ]),
  );
  return { accumulators, fingerprint: undefined, provenance: {} };
}
