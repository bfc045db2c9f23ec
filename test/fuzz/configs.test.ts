import fc from "fast-check";
import { expect, it } from "vitest";
import { parseConfig, patchConfigText } from "../../src/checkpoint/json.js";
import { PruneError } from "../../src/errors.js";
import { type Architecture, readArchitecture } from "../../src/policy/architecture.js";
import { countActiveParams, countParams } from "../../src/policy/cost.js";
import { countRanked, prunableNames } from "../../src/policy/hyperparameters.js";
import { makePlan } from "../../src/policy/plan.js";
import { rankByPosition } from "../../src/policy/rank.js";
import { architectureRows, rowShape } from "../../src/policy/tensors.js";
import { NETWORKS } from "../fixtures/families.js";
import { nearText } from "./documents.js";
import { FACTOR, outcomeOf, Tally, TIMEOUT_MS } from "./outcome.js";

const OWN = [
  ...['"LlamaForCausalLM"', '["NemotronHForCausalLM"]', '["MEM*E", "x"]', '"MMEE"', '"M*-E"', '["mamba", "constructor"]'],
  ...['["mamba","attention","mlp","moe"]', "[0,1]", '["full_attention","full_attention","full_attention","full_attention"]'],
  ...['"hidden_size"', '"num_local_experts"', '"n_groups"', '"num_nextn_predict_layers"', '"moe_latent_size"', '"layer_types"'],
  ...['"mxfp4"', '"fp8"', '["re:.*layers.0"]', '["model.layers.0", 7]', '"128x128"', '"block"', '"quantization_config"'],
  ...["10000", "10001", "16777216", "4", "32", "44"],
];
const MOST_RANKED = 100_000;
const compressed = {
  format: "float-quantized",
  config_groups: { group_0: { weights: { num_bits: 8, type: "float", strategy: "channel" } } },
};
const QUANTIZED = [
  { quant_method: "fp8", fmt: "e4m3", weight_block_size: [16, 16], modules_to_not_convert: ["model.layers.1.mlp", "lm_head"] },
  { quant_method: "fbgemm_fp8", modules_to_not_convert: ["lm_head"] },
  { quant_method: "compressed-tensors", ignore: ["lm_head", "re:.*gate.*"], ...compressed },
].map((quantization_config) => ({ ...NETWORKS["llama"], quantization_config }));
const bases = fc.constantFrom(...Object.values(NETWORKS), ...QUANTIZED);

it(
  "a config ends in an architecture all of whose tensors have sizes, or in a PruneError",
  () => {
    const tally = new Tally();
    fc.assert(
      fc.property(nearText(bases, OWN, 3), (text) => {
        const { value } = tally.count(
          outcomeOf(() => {
            const config = parseConfig(text, "config.json");
            const architecture = readArchitecture(config);
            return { config, architecture, params: countParams(architecture), active: countActiveParams(architecture) };
          }),
        );
        if (!value) return true;
        const sizes = architectureRows(value.architecture).flatMap((row) => rowShape(row, value.architecture));
        const positive = sizes.every((size) => Number.isSafeInteger(size) && size > 0);
        return positive && Number.isSafeInteger(value.params) && value.active > 0 && value.active <= value.params;
      }),
      { numRuns: 15_000 * FACTOR },
    );
    expect(tally.share).toBeGreaterThan(0.2);
  },
  TIMEOUT_MS,
);

it(
  "a config that is pruned is read again as what the plan makes of it",
  () => {
    const tally = new Tally();
    fc.assert(
      fc.property(nearText(bases, OWN, 2), fc.nat(9), fc.nat(40), (text, which, size) => {
        const { value } = tally.count(outcomeOf(() => prune(text, which, size)));
        if (!value) return true;
        const { config, patched, plan } = value;
        const child = readArchitecture(patched).hyperparameters;
        // A child whose last layer of some kind went has no sizes of that kind.
        const agree = Object.entries(child).every(([name, stated]) => plan.child.hyperparameters[name as keyof typeof child] === stated);
        return agree && Object.keys(config).every((name) => name in plan.config || Object.is(show(config[name]), show(patched[name])));
      }),
      { numRuns: 5000 * FACTOR },
    );
    expect(tally.share).toBeGreaterThan(0.1);
  },
  TIMEOUT_MS,
);

interface Pruned {
  readonly config: Record<string, unknown>;
  readonly patched: Record<string, unknown>;
  readonly plan: ReturnType<typeof makePlan>;
}

function prune(text: string, which: number, size: number): Pruned {
  const config = parseConfig(text, "config.json");
  const architecture = readArchitecture(config);
  // Ranking takes time by the number of positions, which is for real networks to spend.
  if (countRanked(architecture.sizes) > MOST_RANKED) throw new PruneError("BAD_CONFIG", "is larger than what this test prunes");
  const plan = makePlan(architecture, config, { [nameAt(architecture, which)]: size }, rankByPosition(architecture));
  return { config, plan, patched: parseConfig(patchConfigText(text, plan.config), "the child's config.json") };
}

function nameAt({ hyperparameters }: Architecture, which: number): string {
  const names = prunableNames(hyperparameters);
  return names[which % names.length] ?? "num_layers";
}

function show(value: unknown): string {
  return JSON.stringify(value) ?? "";
}
