// The demo: prune a real language model through the public API, and see whether measured importance is worth anything.
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { ProgressBar } from "../../src/cli/progressBar.js";
import { Bridge, inspect, type PruneConfig, prune, textBatches, verify } from "../../src/index.js";
import { formatTable } from "../../src/tables.js";

const [folder = ".demo"] = process.argv.slice(2);
const parentDir = join(folder, "smollm2-135m");
const exportConfig = { ffn_hidden_size: 1152, num_query_groups: 2 };
const calibration = { seqLength: 256, samples: 96, batchSize: 8 };
const heldOut = { seqLength: 256, samples: 32, batchSize: 8 };

const started = performance.now();
using bar = new ProgressBar();
await using bridge = await Bridge.spawn();

const rows: (string | number)[][] = [["", "parameters", "perplexity"]];
const measure = async (name: string, dir: string): Promise<void> => {
  await using model = await bridge.open(dir, { dtype: "float32" });
  const loss = await model.loss(textBatches(join(folder, "held-out.jsonl"), model, heldOut), { onProgress: bar.update });
  rows.push([name, (await inspect(dir)).params, Math.exp(loss).toFixed(1)]);
};

const pruneInto = async (name: string, config: PruneConfig): Promise<string> => {
  const out = join(folder, name);
  await rm(out, { recursive: true, force: true });
  await using model = await bridge.open(parentDir, { dtype: "float32" });
  const dataLoader = config.scores === undefined ? textBatches(join(folder, "calibration.jsonl"), model, calibration) : undefined;
  const options = { dataLoader, onProgress: bar.update, ...config };
  const { subnet } = await prune(model, "mcore_gpt_minitron", { export_config: exportConfig }, null, options);
  await subnet.save(out, { onProgress: bar.update });
  await verify(out);
  return out;
};

console.log(
  `SmolLM2-135M-Instruct, calibrated on ${calibration.samples} sequences of documentation strings, pruned to ${JSON.stringify(exportConfig)}`,
);
await measure("parent", parentDir);
await measure("pruned by activation", await pruneInto("pruned", {}));
await measure("largest weights kept", await pruneInto("largest-weights", { scores: join(folder, "scores-largest-weights.safetensors") }));
await measure("random channels kept", await pruneInto("random", { scores: join(folder, "scores-random.safetensors") }));

bar[Symbol.dispose]();
console.log(`\n${formatTable(rows)}\n`);
const seconds = Math.round((performance.now() - started) / 1000);
console.log(`Held-out text, lower is better; no retraining. In many layers the most active channels have the smallest weights,
so that keeping large weights does more harm than chance. The pruned checkpoint is ${join(folder, "pruned")}; ${seconds} s.`);
