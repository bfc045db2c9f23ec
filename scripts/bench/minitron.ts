// Whether a search finds something: SmolLM2-135M pruned to 75% of its parameters, candidates judged on one text and measured on another.
import { join } from "node:path";
import { ProgressBar } from "../../src/cli/progressBar.js";
import { Bridge, formatTable, negativeLoss, prune, python, textBatches } from "../../src/index.js";

const [folder = ".demo"] = process.argv.slice(2);
const FINGERPRINT = "weight_fingerprint:weight_fingerprint";
const calibration = { seqLength: 256, samples: 64, batchSize: 8 };
const judged = { seqLength: 256, samples: 16, batchSize: 8 };
const measured = { seqLength: 256, samples: 48, batchSize: 8 };
// Steps that suit a network of 576 hidden channels.
const steps = { hidden_size_divisor: 64, ffn_hidden_size_divisor: 128, num_layers_divisor: 1 };
const median = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

using bar = new ProgressBar();
await using bridge = await Bridge.spawn({ allowPython: [FINGERPRINT], env: { PYTHONPATH: import.meta.dirname } });
await using model = await bridge.open(join(folder, "smollm2-135m"), { dtype: "float32" });
const heldOut = textBatches(join(folder, "held-out.jsonl"), model, measured);
const before = await model.score(python(FINGERPRINT));
const parentLoss = await model.loss(heldOut, { onProgress: bar.update });

const fingerprints = new Set([before]);
const onHeldOut: number[] = [];
const judge = negativeLoss(join(folder, "calibration.jsonl"), model, judged);
const began = performance.now();
const { subnet, stateDict } = await prune(model, [["mcore_gpt_minitron", steps]], { params: "75%" }, null, {
  dataLoader: textBatches(join(folder, "calibration.jsonl"), model, calibration),
  scoreFunc: async (candidate) => {
    onHeldOut.push(Math.exp(await candidate.loss(heldOut)));
    const score = await judge(candidate);
    fingerprints.add(await model.score(python(FINGERPRINT)));
    return score;
  },
  topK: 10,
  verbose: (text) => console.log(`${text}\n`),
  onProgress: bar.update,
});
const seconds = (performance.now() - began) / 1000;
const best = Math.exp(await subnet.loss(heldOut, { onProgress: bar.update }));

bar[Symbol.dispose]();
console.log(
  formatTable([
    ["SmolLM2-135M, held-out perplexity, no retraining", ""],
    ["parent", Math.exp(parentLoss).toFixed(2)],
    ["best candidate", best.toFixed(2)],
    ["median of the candidates", median([...onHeldOut]).toFixed(2)],
    ["worst of the candidates", Math.max(...onHeldOut).toFixed(2)],
    ["candidates", onHeldOut.length],
    ["seconds", seconds.toFixed(0)],
    ["of them scoring", stateDict.timings.scoring.toFixed(0)],
    ["weights' hash, before and after each candidate", fingerprints.size === 1 ? "the same" : `${fingerprints.size} different ones`],
  ]),
);
