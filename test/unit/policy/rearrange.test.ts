import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readHeader } from "../../../src/checkpoint/safetensors.js";
import { type Architecture, readArchitecture } from "../../../src/policy/architecture.js";
import type { LayoutName } from "../../../src/policy/families/table.js";
import type { Kept } from "../../../src/policy/kept.js";
import { type MatchedTensors, matchTensors } from "../../../src/policy/matchTensors.js";
import { makePlan } from "../../../src/policy/plan.js";
import { rankByActivation } from "../../../src/policy/rank.js";
import { rearrangeTensors } from "../../../src/policy/rearrange.js";
import { sliceTensors } from "../../../src/policy/slices.js";
import { expectedTensors, type StoredTensor } from "../../../src/policy/tensors.js";
import { asFloat32, bytesOf, type Tensor } from "../../../src/tensor.js";
import { plantedScores } from "../../fixtures/checkpoints.js";
import { TINY } from "../../fixtures/families.js";
import { plainCut } from "../../fixtures/plainCut.js";

const GOLDEN = join(import.meta.dirname, "..", "..", "golden");

interface Stored {
  readonly matched: MatchedTensors<StoredTensor>;
  readonly values: ReadonlyMap<string, Tensor>;
}

function digest(array: Float32Array): string {
  return createHash("sha256").update(bytesOf(array)).digest("hex");
}

async function readStored(architecture: Architecture, path: string): Promise<Stored> {
  const header = await readHeader(path);
  const bytes = await readFile(path);
  const values = new Map(
    header.tensors.map(({ name, dtype, shape, begin, end }) => [name, { dtype, shape, data: bytes.subarray(begin, end) }]),
  );
  return { matched: matchTensors(architecture, header.tensors), values };
}

/** A cut of every axis that the network has, with kept channels that have no pattern. */
function irregularCut(config: Readonly<Record<string, unknown>>, architecture: Architecture): Kept {
  const { hyperparameters: sizes } = architecture;
  const scores = plantedScores(config, (name, i) => 1 + ((name.length * 31 + i * 17) % 13));
  const target = {
    num_layers: sizes.num_layers - 1,
    hidden_size: sizes.hidden_size - 8,
    num_attention_heads: sizes.num_query_groups * (sizes.num_attention_heads / sizes.num_query_groups - 1 || 1),
    ...(sizes.ffn_hidden_size !== undefined && { ffn_hidden_size: sizes.ffn_hidden_size - 8 }),
    ...(sizes.num_moe_experts !== undefined && { num_moe_experts: sizes.num_moe_experts - 1 }),
    ...(sizes.moe_ffn_hidden_size !== undefined && { moe_ffn_hidden_size: sizes.moe_ffn_hidden_size - 8 }),
  };
  const ranking = rankByActivation(
    architecture,
    new Map(scores.map((tensor) => [tensor.name, { shape: tensor.shape, data: asFloat32(tensor) }])),
  );
  return makePlan(architecture, config, target, ranking).kept;
}

describe.each(["llama-gqa", "nemotron-mha", "mixtral-small"])("%s", (golden) => {
  const folder = join(GOLDEN, golden);
  const read = async () => {
    const config = JSON.parse(await readFile(join(folder, "parent.hf", "config.json"), "utf8"));
    const architecture = readArchitecture(config);
    const huggingface = await readStored(architecture, join(folder, "parent.hf", "model.safetensors"));
    const megatron = await readStored(architecture, join(folder, "parent.mcore.safetensors"));
    return { config, architecture, huggingface, megatron };
  };
  const same = (values: ReadonlyMap<string, Float32Array>) => [...values].map(([name, array]) => `${name} ${digest(array)}`).sort();
  const floats = (values: ReadonlyMap<string, Tensor>) => same(new Map([...values].map(([name, tensor]) => [name, asFloat32(tensor)])));

  it("becomes the same network's checkpoint in the other layout", async () => {
    const { architecture, huggingface, megatron } = await read();
    expect(same(plainCut(rearrangeTensors(architecture, {}, huggingface.matched, "megatron"), huggingface.values))).toEqual(
      floats(megatron.values),
    );
    expect(same(plainCut(rearrangeTensors(architecture, {}, megatron.matched, "huggingface"), megatron.values))).toEqual(
      floats(huggingface.values),
    );
  });

  it("gives one child from either layout, into either", async () => {
    const { config, architecture, huggingface, megatron } = await read();
    const kept = irregularCut(config, architecture);
    const inHuggingface = plainCut(sliceTensors(architecture, kept, huggingface.matched.tensors), huggingface.values);
    const inMegatron = plainCut(sliceTensors(architecture, kept, megatron.matched.tensors), megatron.values);
    expect(same(plainCut(rearrangeTensors(architecture, kept, megatron.matched, "huggingface"), megatron.values))).toEqual(
      same(inHuggingface),
    );
    expect(same(plainCut(rearrangeTensors(architecture, kept, huggingface.matched, "megatron"), huggingface.values))).toEqual(
      same(inMegatron),
    );
  });
});

describe.each(Object.entries(TINY).filter(([, config]) => readArchitecture(config).table.layouts.some(({ name }) => name === "megatron")))(
  "%s",
  (family, config) => {
    const architecture = readArchitecture(config);

    it("has in Megatron-Core's layout what it has in its own, once", () => {
      const stored = expectedTensors(architecture, "megatron").map((tensor) => tensor.stored);
      const back = rearrangeTensors(architecture, {}, matchTensors(architecture, stored), "huggingface");
      const shapes = back.tensors.map(({ name, shape }) => [name, shape]);
      expect(shapes).toEqual(expectedTensors(architecture, "huggingface").map(({ stored: { name, shape } }) => [name, shape]));
    });

    it("has the weights of norms around one or zero, as either layout has them", () => {
      const shifts = (of: Architecture, from: LayoutName, into: LayoutName) => {
        const stored = expectedTensors(of, from).map((tensor) => tensor.stored);
        return rearrangeTensors(of, {}, matchTensors(of, stored), into).tensors.flatMap(({ name, parts }) =>
          parts.flatMap(({ shift }) => (shift === undefined ? [] : [`${name} ${shift}`])),
        );
      };
      const norms = expectedTensors(architecture, "huggingface")
        .map(({ stored: { name } }) => name)
        .filter((name) => /norm(_f)?\.weight$/.test(name) && !name.endsWith("mixer.norm.weight"));
      const shifted = (by: number) => norms.map((name) => `${name} ${by}`);
      const isAroundZero = ["nemotron", "gemma3"].includes(family);
      const centered = readArchitecture({ ...config, layernorm_zero_centered_gamma: true });
      expect(shifts(architecture, "megatron", "huggingface")).toEqual(isAroundZero ? shifted(-1) : []);
      expect(shifts(centered, "megatron", "huggingface")).toEqual(isAroundZero ? [] : shifted(1));
      expect(shifts(architecture, "huggingface", "megatron")).toHaveLength(isAroundZero ? norms.length : 0);
      expect(shifts(centered, "huggingface", "megatron")).toHaveLength(isAroundZero ? 0 : norms.length);
      expect(shifts(centered, "megatron", "megatron")).toEqual([]);
    });

    it("is known by Transformer Engine's names, and with wrappers' prefixes", () => {
      const stored = expectedTensors(architecture, "megatron").map(({ stored: { name, shape } }) => ({
        name: `module.${name
          .replace(".input_layernorm.", ".self_attention.linear_qkv.layer_norm_")
          .replace(/\.local_experts\.(\d+)\.(linear_fc[12]\.weight)/, ".$2$1")}`,
        shape,
      }));
      const matched = matchTensors(architecture, [...stored, { name: "module.decoder.layers.0.mlp.linear_fc1._extra_state", shape: [3] }]);
      expect(matched.tensors).toHaveLength(stored.length);
      const cut = sliceTensors(architecture, {}, matched.tensors);
      expect(cut.tensors.map(({ name }) => name)).toEqual(stored.map(({ name }) => name));
    });
  },
);

it("leaves the padding of a vocabulary out, and keeps it in Megatron-Core's own layout", () => {
  const architecture = readArchitecture(TINY["llama"] ?? {});
  const vocabulary = architecture.hyperparameters.vocab_size;
  const stored = expectedTensors(architecture, "megatron").map(({ stored: { name, shape } }) => ({
    name,
    shape: /embedding|output_layer/.test(name) ? [vocabulary + 5, ...shape.slice(1)] : shape,
  }));
  const matched = matchTensors(architecture, stored);
  const rows = (slices: ReturnType<typeof sliceTensors>, name: string) => slices.tensors.find((tensor) => tensor.name === name)?.shape[0];
  expect(rows(sliceTensors(architecture, {}, matched.tensors), "embedding.word_embeddings.weight")).toBe(vocabulary + 5);
  expect(rows(rearrangeTensors(architecture, {}, matched, "huggingface"), "model.embed_tokens.weight")).toBe(vocabulary);
});
