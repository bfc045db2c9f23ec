import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { commonEdit, saveFolder } from "../../../../src/checkpoint/megatron/childFiles.js";
import { childArguments, patchedSizes } from "../../../../src/checkpoint/megatron/childSizes.js";
import { childStates, savePlaces } from "../../../../src/checkpoint/megatron/savePlaces.js";
import { viewTensors } from "../../../../src/checkpoint/megatron/views.js";
import type { PlanFile } from "../../../../src/checkpoint/planFile.js";
import { temporaryFolder } from "../../../fixtures/checkpoints.js";

const PARENT = {
  num_layers: 4,
  hidden_size: 64,
  ffn_hidden_size: 256,
  num_attention_heads: 8,
  num_query_groups: 8,
  kv_channels: 8,
  vocab_size: 100,
  max_position_embeddings: 32,
};

function planOf(child: Partial<PlanFile["child"]["hyperparameters"]>, config: Record<string, unknown> = {}): PlanFile {
  const side = { hyperparameters: PARENT, params: 0, activeParams: 0 };
  return {
    mode: "mcore_gpt_minitron",
    family: "megatron_gpt",
    exportConfig: {},
    fingerprint: null,
    parent: side,
    child: { ...side, hyperparameters: { ...PARENT, ...child } },
    config,
    warnings: [],
    kept: {},
  };
}

describe("savePlaces", () => {
  it.each([
    ["module.decoder.layers.mlp.experts.experts.linear_fc1.weight", [3, 2, 8, 4], true],
    ["decoder.layers.self_attention.linear_qkv.layer_norm_bias", [3, 4], true],
    ["decoder.layers.1.mlp.experts.experts.linear_fc2.weight", [2, 4, 8], false],
    ["embedding.word_embeddings.weight", [10, 4], true],
  ] as const)("is the inverse of views: %s", (key, shape, layersAsAxis) => {
    const views = viewTensors([{ key, dtype: "F32", shape, chunks: [] }], "here");
    const places = savePlaces(
      views.map(({ name }) => name),
      layersAsAxis,
    );
    const outer = shape.slice(0, views[0]?.view.index.length);
    expect(places).toEqual(views.map(({ view }) => ({ ...view, outerShape: outer })));
  });
});

describe("childStates", () => {
  const counts = { layers: 2, experts: 3, layerOf: (layer: number) => [undefined, 0, undefined, 1][layer] };

  it("has one for each layer and expert of the child", () => {
    const parent = ["decoder.layers.mlp.linear_fc1._extra_state/shard_0_4", "decoder.layers.mlp.linear_fc1._extra_state/shard_3_4"];
    expect(childStates(parent, counts)).toEqual([0, 1].map((layer) => `decoder.layers.mlp.linear_fc1._extra_state/shard_${layer}_2`));
    const experts = "module.decoder.layers.mlp.experts.experts.linear_fc2._extra_state";
    const positions = ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"];
    expect(childStates([`${experts}/shard_1.1_4.8`], counts)).toEqual(positions.map((at) => `${experts}/shard_${at}_2.3`));
  });

  it("moves those of layers that have names of their own", () => {
    const state = (layer: number, rest: string): string => `decoder.layers.${layer}.${rest}`;
    const parent = [0, 1, 2, 3].map((layer) => state(layer, "mlp.linear_fc1._extra_state/shard_0_1"));
    expect(childStates(parent, counts)).toEqual([0, 1].map((layer) => state(layer, "mlp.linear_fc1._extra_state/shard_0_1")));
    expect(childStates([state(3, "mlp.experts.experts.linear_fc1._extra_state/shard_5_8")], counts)).toEqual(
      [0, 1, 2].map((expert) => state(1, `mlp.experts.experts.linear_fc1._extra_state/shard_${expert}_3`)),
    );
  });
});

describe("a child's sizes", () => {
  it("are written where a config states them, and all else stays as it is written", async () => {
    const folder = await temporaryFolder();
    const yaml = `# as it was run
_target_: nemo.collections.llm.LlamaModel
config:
  activation_func: !!python/name:torch.nn.functional.silu
  hidden_size: 64 # of all layers
  num_layers: 4
  ffn_hidden_size: null
  num_attention_heads: 8
  num_query_groups:
  moe_layer_freq:
  - 1
  - 0
  - 1
  - 0
  init_method_std: 1.0e-02
optim: {lr: 3.0e-04}
`;
    await mkdir(join(folder, "context"));
    await writeFile(join(folder, "context", "model.yaml"), yaml);
    const plan = planOf({ num_layers: 3, hidden_size: 48, num_attention_heads: 4, num_query_groups: 4 }, { moe_layer_freq: [1, 0, 1] });
    expect(await patchedSizes(folder, "context/model.yaml", plan)).toBe(
      yaml
        .replace("hidden_size: 64 #", "hidden_size: 48 #")
        .replace("num_layers: 4", "num_layers: 3")
        .replace("ffn_hidden_size: null", "ffn_hidden_size: 256")
        .replace("num_attention_heads: 8", "num_attention_heads: 4")
        .replace("num_query_groups:", "num_query_groups: 4")
        .replace(/moe_layer_freq:[-\s\d]*0\n/, "moe_layer_freq: [1,0,1]\n")
        .replace("  activation_func", "  kv_channels: 8\n  activation_func"),
    );
  });

  it("become arguments, with what only these spell otherwise", () => {
    const sizes = childArguments(
      planOf({ num_moe_experts: 6, num_layers: 2 }, { moe_layer_freq: [1, 0], no_rope_freq: [0, 1], mtp_num_layers: 0 }),
    );
    expect(sizes).toMatchObject({
      num_experts: 6,
      num_moe_experts: 6,
      num_layers: 2,
      encoder_num_layers: 2,
      moe_layer_freq: [1, 0],
      no_rope_freq: [0, 1],
    });
    expect(sizes).toMatchObject({ mtp_num_layers: null, kv_channels: 8 });
    expect(sizes).not.toHaveProperty("vocab_size");
  });
});

describe("where a child's save lies", () => {
  it.each([
    ["/a/iter_0000010", { name: "iter_0000010", tracker: "10" }],
    ["/a/iter_123456789", { name: "iter_123456789", tracker: "123456789" }],
    ["/a/release", { name: "release", tracker: "release" }],
    ["/a/weights", { name: "weights", tracker: undefined }],
    ["/a/renamed", { name: "release", tracker: "release" }],
  ])("%s", (parent, expected) => {
    expect(saveFolder(parent)).toEqual(expected);
  });

  it("says who states the sizes: what only Megatron-LM's arguments state is edited", () => {
    const edit = (names: string[], folder: string) => commonEdit({ names: new Set(names) }, saveFolder(folder), planOf({}));
    expect(edit(["common.pt"], "/a/iter_0000010")).toMatchObject({ leftOut: ["optimizer"], arguments: { hidden_size: 64 } });
    expect(edit(["common.pt", "run_config.yaml"], "/a/iter_0000010")).toBeUndefined();
    expect(edit(["common.pt"], "/a/weights")).toBeUndefined();
  });
});
