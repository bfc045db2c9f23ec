// How long a network of 405 B parameters takes to inspect and to plan for: 406 GB in 94 files, which are holes behind their headers.
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { plan, readParent, readPlanFor, readScoreFile, writePlanFile } from "../../src/index.js";
import { formatTable } from "../../src/tables.js";
import { LLAMA_405B, writeRandomScores, writeSparseCheckpoint } from "../../test/fixtures/sparse.js";

const ROUNDS = 5;
const TARGET = { num_layers: 100, hidden_size: 12288, ffn_hidden_size: 40960, num_attention_heads: 96 };

const [inputs = ".demo"] = process.argv.slice(2);
const folder = join(inputs, "plan-bench");
await rm(folder, { recursive: true, force: true });
const path = await writeSparseCheckpoint(join(folder, "parent"), LLAMA_405B);
if (path === undefined) throw new Error(`the file system of ${folder} stores no holes`);
const scores = await readScoreFile(await writeRandomScores(join(folder, "scores.safetensors"), LLAMA_405B));
const planPath = join(folder, "plan.json");

const rows = new Map<string, number[]>();
const timed = async <T>(name: string, work: () => T | Promise<T>): Promise<T> => {
  const began = performance.now();
  const result = await work();
  rows.set(name, [...(rows.get(name) ?? []), (performance.now() - began) / 1000]);
  return result;
};
for (let round = 0; round < ROUNDS; round++) {
  const parent = await timed("inspect", () => readParent(path));
  await timed("plan, by position", () => plan(parent, TARGET, "position"));
  const made = await timed("plan, by scores", () => plan(parent, TARGET, { scores, path: "random" }));
  await timed("write plan.json", () => writePlanFile(planPath, made));
  await timed("read and check plan.json", () => readPlanFor(parent, planPath));
}
const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
const seconds = (value: number): string => value.toFixed(2);
console.log(`Llama-3.1-405B in 8 bits cut to ${JSON.stringify(TARGET)}, ${ROUNDS} rounds\n`);
console.log(
  formatTable([
    ["", "median, s", "least, s"],
    ...[...rows].map(([name, values]) => [name, seconds(median(values)), seconds(Math.min(...values))]),
  ]),
);
console.log("\ngoal: inspect and plan under a second each");
await rm(folder, { recursive: true, force: true });
