// How many candidates a search evaluates in a second, all metrics on: closed forms of Llama-3.1-8B's sizes, against a sum over the family's table for each.
import { cpus } from "node:os";
import { formatTable } from "../../src/index.js";
import { readArchitecture, withHyperparameters } from "../../src/policy/architecture.js";
import { parseBounds } from "../../src/policy/search/bounds.js";
import { costsOf, searchSubnets } from "../../src/policy/search/search.js";
import { SPACE_DEFAULTS, searchSpace } from "../../src/policy/search/space.js";

const ROUNDS = 7;
const NAIVE_CANDIDATES = 2_000;
const workload = { seqLength: 4096, batchSize: 1 };
const sizes = { num_hidden_layers: 32, hidden_size: 4096, intermediate_size: 14336, num_attention_heads: 32, num_key_value_heads: 8 };
const shared = { num_local_experts: 8, num_experts_per_tok: 2, head_dim: 128 };
const networks = {
  "Llama-3.1-8B, dense": readArchitecture({ architectures: ["LlamaForCausalLM"], vocab_size: 128256, ...sizes }),
  "Mixtral-8x7B, experts": readArchitecture({ architectures: ["MixtralForCausalLM"], vocab_size: 32000, ...sizes, ...shared }),
};
const median = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

const rows: (string | number)[][] = [["", "candidates", "within bounds", "M candidates/s", "table by table, M/s", "ratio"]];
for (const [name, architecture] of Object.entries(networks)) {
  const options = {
    ...SPACE_DEFAULTS,
    maxWidthPruning: 0.6,
    maxDepthPruning: 0.5,
    hidden_size_divisor: 32,
    num_moe_experts_divisor: 1,
  };
  const space = searchSpace(architecture.hyperparameters, { ...options, ffn_hidden_size_divisor: 16, num_layers_divisor: 1 });
  const bounds = parseBounds({ params: "75%", active_params: "75%", memory_mb: "80%", flops: "80%" });
  const [closed, naive]: number[][] = [[], []];
  let [spaceSize, feasible] = [0, 0];
  for (let round = 0; round < ROUNDS; round++) {
    let began = performance.now();
    const found = searchSubnets(architecture, space, bounds, { ...workload, topK: 10 });
    ({ spaceSize, feasible } = found);
    closed?.push(spaceSize / (performance.now() - began) / 1e3);
    began = performance.now();
    for (let i = 0; i < NAIVE_CANDIDATES; i++) {
      const hidden_size = space.hidden_size[i % space.hidden_size.length] ?? 0;
      costsOf(withHyperparameters(architecture, { ...architecture.hyperparameters, hidden_size }), workload);
    }
    naive?.push(NAIVE_CANDIDATES / (performance.now() - began) / 1e3);
  }
  const [fast, slow] = [median(closed ?? []), median(naive ?? [])];
  rows.push([name, spaceSize, feasible, fast.toFixed(1), slow.toFixed(4), Math.round(fast / slow)]);
}
console.log(`one core of ${cpus()[0]?.model}, medians of ${ROUNDS} rounds in one run\n`);
console.log(formatTable(rows));
console.log("\ngoal: 3 M candidates/s for the dense network (the reference evaluates 0.061 M/s)");
