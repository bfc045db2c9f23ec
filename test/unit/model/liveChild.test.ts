import { join } from "node:path";
import { expect, it } from "vitest";
import { type JobModel, readJobNetwork } from "../../../src/model/jobNetwork.js";
import { checkLiveChild, layOutLiveChild } from "../../../src/model/liveChild.js";
import { plan } from "../../../src/plan.js";
import { GOLDENS } from "../../fixtures/megatronFolders.js";

const CONFIG = {
  architectures: ["GPTModel"],
  num_layers: 4,
  hidden_size: 64,
  ffn_hidden_size: 128,
  num_attention_heads: 8,
  num_query_groups: 4,
  kv_channels: 8,
  vocab_size: 256,
  padded_vocab_size: 300,
  normalization: "RMSNorm",
  gated_linear_unit: true,
  add_bias_linear: false,
  position_embedding_type: "rope",
  share_embeddings_and_output_weights: false,
};
/** 2 * padded vocabulary * hidden, a norm, and 4 layers of two norms, attention and MLP. */
const PARAMETERS = 2 * 300 * 64 + 64 + 4 * (2 * 64 + 64 * 128 + 64 * 64 + 3 * 64 * 128);
const LIKE = join(GOLDENS, "llama-gqa", "parent.hf");

function jobOf(changes: Partial<JobModel> = {}, config: object = {}): JobModel {
  const configJson = JSON.stringify({ ...CONFIG, ...config });
  return { modelId: "m", device: "cpu", dtype: "bfloat16", parameters: PARAMETERS, configJson, mayBeCut: false, steps: 0, ...changes };
}

async function layOut(job: JobModel, options: Parameters<typeof layOutLiveChild>[3] = {}): ReturnType<typeof layOutLiveChild> {
  const network = await readJobNetwork(job, "boot", undefined);
  return layOutLiveChild(job, network, { ...plan(network, { num_layers: 3 }, "position") }, options);
}

it("asks for tensors as the job has them, in its type and with the padding of its vocabulary", async () => {
  const { shards, plan: made } = await layOut(jobOf());
  const tensors = shards.flatMap((shard) => shard.tensors);
  expect(tensors.find(({ name }) => name === "output_layer.weight")).toMatchObject({
    shape: [300, 64],
    bytes: 300 * 64 * 2,
    parts: [{ source: { name: "output_layer.weight", dtype: "BF16", shape: [300, 64] } }],
  });
  expect(tensors.map(({ name }) => name)).toContain("decoder.layers.2.self_attention.linear_qkv.weight");
  expect(made.family).toBe("megatron_gpt");
});

it("leaves the padding out, and states the plan by its family, where the child is that family's", async () => {
  const { shards, indexSets, plan: made, files } = await layOut(jobOf(), { like: LIKE });
  const head = shards.flatMap(({ tensors }) => tensors).find(({ name }) => name === "lm_head.weight");
  expect(head).toMatchObject({ shape: [256, 64], parts: [{ source: { name: "output_layer.weight", shape: [300, 64] } }] });
  expect(indexSets.get(head?.parts[0]?.axes[0] ?? "")).toHaveLength(256);
  expect(made).toMatchObject({ family: "llama", config: { num_hidden_layers: 3 }, exportConfig: { num_layers: 3 } });
  expect(JSON.parse(files.written.get("config.json") ?? "")).toMatchObject({ model_type: "llama", num_hidden_layers: 3 });
  expect(files.carried).toMatchObject([{ from: LIKE }]);
});

it("moves weights of norms that the job holds around zero to where the family has them, or says that they are there", async () => {
  const job = jobOf({}, { layernorm_zero_centered_gamma: true });
  const shiftsOf = ({ shards }: Awaited<ReturnType<typeof layOut>>) =>
    new Set(
      shards.flatMap(({ tensors }) => tensors.flatMap(({ name, parts }) => (/norm/.test(name) ? parts.map(({ shift }) => shift) : []))),
    );
  expect(shiftsOf(await layOut(jobOf(), { like: LIKE }))).toEqual(new Set([undefined]));
  expect(shiftsOf(await layOut(job, { like: LIKE }))).toEqual(new Set([1]));
  const kept = await layOut(job, { like: LIKE, layout: "megatron" });
  expect(shiftsOf(kept)).toEqual(new Set([undefined]));
  expect(JSON.parse(kept.files.written.get("config.json") ?? "")).toMatchObject({
    model_type: "llama",
    layernorm_zero_centered_gamma: true,
  });
});

it("keeps what the job's config says of each layer", async () => {
  const { files } = await layOut(jobOf({}, { window_size: [4, 0], window_attn_skip_freq: 2, no_rope_freq: [1, 0, 0, 1] }));
  expect(JSON.parse(files.written.get("config.json") ?? "")).toMatchObject({ window_attn_skip_freq: [1, 0, 1], no_rope_freq: [1, 0, 0] });
});

it.each([
  ["has more weights than its config makes", jobOf({ parameters: PARAMETERS + 64 }), {}, "UNKNOWN_TENSOR", /would be lost/],
  [
    "has biases that the family of the other config lacks",
    jobOf({ parameters: PARAMETERS + 4 * 128 }, { add_qkv_bias: true }),
    { like: LIKE },
    "BAD_OPTION",
    /parameters, and its config, by/,
  ],
  ["is in a type that is none of weights", jobOf({ dtype: "float8_e4m3fn" }), {}, "BAD_OPTION", /cannot be saved/],
])("refuses a model that %s, before there is a plan too", async (_what, job, options, code, why) => {
  const refusal = { code, detail: expect.stringMatching(why) };
  await expect(layOut(job, options)).rejects.toMatchObject(refusal);
  await expect(checkLiveChild(job, await readJobNetwork(job, "boot", undefined), options)).rejects.toMatchObject(refusal);
});

it("finds nothing to refuse, before there is a plan, in what can be laid out", async () => {
  const network = await readJobNetwork(jobOf(), "boot", undefined);
  for (const options of [{}, { like: LIKE }, { like: LIKE, layout: "megatron" as const }]) await checkLiveChild(jobOf(), network, options);
});

it("takes heads for several tokens ahead for what they are", async () => {
  const job = jobOf({ parameters: 2 * PARAMETERS }, { mtp_num_layers: 1 });
  await expect(layOut(job)).resolves.toMatchObject({ plan: { config: { mtp_num_layers: 0 } } });
});
