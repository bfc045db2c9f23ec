// How fast checkpoints are cut: the engine, cp of as many bytes, and the naive way, side by side in one run.
import { existsSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { Bridge, plan, readParent, type ScoreFile, type SliceOptions, slice, writePlanFile } from "../../src/index.js";
import { formatTable } from "../../src/tables.js";

const TICKS_PER_SECOND = 100;
const TARGET = { hidden_size: 3072, ffn_hidden_size: 9216, num_attention_heads: 24, num_query_groups: 8 };

/** What one run took: seconds, CPU seconds, and MB at the most. */
interface Cost {
  readonly wall: number;
  readonly cpu: number;
  readonly peak: number;
}

const [inputs = ".demo", rounds = "5"] = process.argv.slice(2);
if (!(Number(rounds) >= 1)) throw new Error(`npm run bench -- slice [rounds]: ${rounds} is no number of rounds`);
const python = process.env["PRUNEBRIDGE_PYTHON"] ?? "python3";
const script = join(dirname(fileURLToPath(import.meta.url)), "slice_inputs.py");
const folder = join(inputs, "slice-bench");
const at = (name: string): string => join(folder, name);

if (!existsSync(at("parent/config.json"))) await execa(python, [script, "make", at("parent")]);
await execa(python, [script, "make-tiny", at("tiny")]);
const parent = await readParent(at("parent"));
const made = plan(parent, TARGET, { scores: randomScores(), path: "random" });
await writePlanFile(at("plan.json"), made);

await using bridge = await Bridge.spawn();
await importTorch();
const idle = await memory("VmRSS");

const engine = (options: SliceOptions) => async (): Promise<Cost> => {
  await writeFile(`/proc/${bridge.pid}/clear_refs`, "5"); // proc(5): begins the peak anew
  const [cpu, started] = [await cpuSeconds(), performance.now()];
  await slice(bridge, parent, made, at("child"), options);
  return { wall: (performance.now() - started) / 1000, cpu: (await cpuSeconds()) - cpu, peak: await memory("VmHWM") };
};
const program = async (...args: string[]): Promise<Cost> => JSON.parse((await execa(python, [script, ...args])).stdout) as Cost;
const [CP, CP_FLUSHED] = ["cp of the child's bytes", "cp of the child's bytes and fsync of each file"];
const METHODS: Readonly<Record<string, () => Promise<Cost>>> = {
  "engine, + SHA-256": engine({ sha256: true }),
  "engine, not flushed": engine({ flush: false }),
  "engine, flushed": engine({}),
  [CP]: () => program("run", "cp", "-r", at("child"), at("copy")),
  [CP_FLUSHED]: () => program("run", "sh", "-c", `cp -r ${at("child")} ${at("copy")} && sync ${at("copy")}/*`),
  "cp of the parent's bytes": () => program("run", "cp", "-r", at("parent"), at("copy")),
  "load all, index_select, save_file": () => program("naive", at("parent"), at("plan.json"), at("naive.safetensors")),
};

const costs: Record<string, Cost[]> = {};
for (let round = 0; round < Number(rounds); round++) {
  for (const [name, method] of Object.entries(METHODS)) {
    await execa("sync", ["--file-system", folder]); // what the last one left to write is not this one's
    // What each writes takes the memory of what it wrote the last time: memory that lies free is given back to hosts, and costs to get again.
    const target = name.startsWith("engine") ? "child" : name.startsWith("cp") ? "copy" : "naive.safetensors";
    await rm(at(target), { recursive: true, force: true });
    costs[name] = [...(costs[name] ?? []), await method()];
  }
}

const sorted = (values: readonly number[]): number[] => values.toSorted((a, b) => a - b);
const median = (values: readonly number[]): number => sorted(values)[Math.floor(values.length / 2)] ?? Number.NaN;
const least = (values: readonly number[]): number => Math.min(...values);
const of = (name: string, field: keyof Cost): number[] => (costs[name] ?? []).map((cost) => cost[field]);
const over = (name: string, other: string, pick: typeof median): string => (pick(of(name, "wall")) / pick(of(other, "wall"))).toFixed(2);
const ratios = (name: string, pick: typeof median): string[] => [over(name, CP, pick), over(name, CP_FLUSHED, pick)];
console.log(`3.76 GB of bfloat16 in 4 shards cut to ${JSON.stringify(TARGET)}, ${rounds} rounds: medians (least)\n`);
console.log(
  formatTable([
    ["", "wall, s", "CPU, s", "peak, MB", "to cp", "to cp + fsync"],
    ...Object.keys(METHODS).map((name) => [
      name,
      ...(["wall", "cpu"] as const).map((field) => `${median(of(name, field)).toFixed(2)} (${least(of(name, field)).toFixed(2)})`),
      `${Math.max(...of(name, "peak"))}`,
      ...ratios(name, median).map((ratio, i) => `${ratio} (${ratios(name, least)[i]})`),
    ]),
  ]),
);
console.log(`\nthe shim with torch imported takes ${idle} MB when it is idle`);
await rm(folder, { recursive: true, force: true });

/** A shim that holds models has torch in memory, and that is counted: a load that fails imports it, and leaves nothing else. */
async function importTorch(): Promise<void> {
  const model = await bridge.open(at("tiny"), { device: "none" });
  await model.load().catch(() => {});
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
