import { PruneError } from "../../errors.js";
import type { CheckpointTensor } from "../folder.js";
import { patchConfigText, readDocument } from "../json.js";
import type { MegatronConfigFile, MegatronFolder } from "./locate.js";
import { type Pickled, PickledObject } from "./pickled.js";
import { RangeFile } from "./rangeFile.js";
import { readTorchObject } from "./torchArchive.js";
import { COMMON_CLASSES } from "./torchNames.js";
import { readYamlObject } from "./yaml.js";

/** The class of Megatron-Core that a model of such a config is: families go by it. */
const MODEL_CLASS = "GPTModel";

/** What says something of each layer, by a list or by how many there are from one of a kind to the next. */
export const LAYER_FIELDS = ["moe_layer_freq", "window_attn_skip_freq", "no_rope_freq"] as const;

/** Fields of Megatron-Core's TransformerConfig and GPTModel that say what tensors and layers there are. The rest is of no use here. */
const FIELDS = [
  "num_layers",
  "hidden_size",
  "ffn_hidden_size",
  "num_attention_heads",
  "num_query_groups",
  "kv_channels",
  "vocab_size",
  "max_position_embeddings",
  "position_embedding_type",
  "normalization",
  "gated_linear_unit",
  "add_bias_linear",
  "add_qkv_bias",
  "qk_layernorm",
  "share_embeddings_and_output_weights",
  "num_moe_experts",
  ...LAYER_FIELDS,
  "moe_ffn_hidden_size",
  "moe_router_topk",
  "moe_router_num_groups",
  "moe_router_group_topk",
  "moe_router_enable_expert_bias",
  "moe_shared_expert_intermediate_size",
  "moe_shared_expert_gate",
  "mtp_num_layers",
] as const;

/** Switches of networks whose sizes mean other things than a GPT's. */
const FOREIGN = [
  "multi_latent_attention",
  "is_hybrid_model",
  "hybrid_override_pattern",
  "hybrid_layer_pattern",
  "heterogeneous_layers_config_path",
  "heterogeneous_block_specs",
  "linear_attention_freq",
  "moe_latent_size",
];

const EMBEDDING = "embedding.word_embeddings.weight";
export const ZERO_CENTERED = "layernorm_zero_centered_gamma";
const OUTPUT_LAYER = "output_layer.weight";

type Fields = Readonly<Record<string, unknown>>;
type StoredTensor = Pick<CheckpointTensor, "name" | "shape">;

/**
 * Reads what states a Megatron model's sizes, as the text of a config of Megatron-Core's own names.
 *
 * @param stored - the weights, which are asked where the config says nothing of the vocabulary or of tied embeddings
 * @throws PruneError BAD_CONFIG, or UNKNOWN_ARCHITECTURE where the model is no GPT
 */
export async function readModelConfigText({ config, beside }: MegatronFolder, stored: readonly StoredTensor[]): Promise<string> {
  const { kind, path } = config;
  if (kind === "huggingface") return withStated(await readDocument(path, "BAD_CONFIG"), beside);
  return `${JSON.stringify(describe(await readStated(kind, path), stored, path), null, 2)}\n`;
}

/** A Hugging Face config with what no such says: whether Megatron-Core has the weights of norms around zero, and its fields of layers. */
async function withStated(text: string, beside: MegatronConfigFile | undefined): Promise<string> {
  if (beside === undefined || beside.kind === "huggingface") return text;
  const stated = await readStated(beside.kind, beside.path).catch((error: unknown): Fields => {
    // A common.pt without arguments, or a config without a model: that states nothing.
    if (error instanceof PruneError && error.code === "BAD_CONFIG") return {};
    throw error;
  });
  return patchConfigText(text, {
    ...(stated[ZERO_CENTERED] === true && { [ZERO_CENTERED]: true }),
    ...Object.fromEntries(LAYER_FIELDS.filter((name) => tellsLayersApart(stated[name])).map((name) => [name, stated[name]])),
  });
}

function tellsLayersApart(field: unknown): boolean {
  return Array.isArray(field) || (typeof field === "number" && field > 1);
}

async function readStated(kind: Exclude<MegatronConfigFile["kind"], "huggingface">, path: string): Promise<Fields> {
  switch (kind) {
    case "bridge":
      return fromConfig(section(await readYamlObject(path), "model", path));
    case "nemo":
      return fromConfig(section(await readYamlObject(path), "config", path));
    case "arguments":
      return fromArguments(await readArguments(path));
  }
}

function section(document: Fields, name: string, path: string): Fields {
  const found = document[name];
  if (typeof found === "object" && found !== null && !Array.isArray(found)) return found as Fields;
  throw new PruneError("BAD_CONFIG", `${path} has no section "${name}", which states the model's sizes`);
}

async function readArguments(path: string): Promise<Fields> {
  await using file = await RangeFile.open(path);
  const common = await readTorchObject(file, COMMON_CLASSES);
  const args = common instanceof Map ? common.get("args") : undefined;
  if (args instanceof PickledObject && args.state instanceof Map) return plainFields(args.state);
  throw new PruneError("BAD_CONFIG", `${path} holds no "args", the arguments of the training script, which state the model's sizes`, {
    hint: "put the run_config.yaml of Megatron-Bridge, or a Hugging Face config.json, into the folder",
  });
}

function plainFields(fields: ReadonlyMap<Pickled, Pickled>): Fields {
  return Object.fromEntries([...fields].filter(([name]) => typeof name === "string"));
}

/** Megatron-LM's command line spells some fields in its own way. */
function fromArguments(args: Fields): Fields {
  const untied = args["untie_embeddings_and_output_weights"] === true;
  return {
    ...args,
    // Without the switch, the number of groups stands at 1 and means nothing.
    num_query_groups: args["group_query_attention"] === true ? args["num_query_groups"] : null,
    num_moe_experts: args["num_experts"] ?? args["num_moe_experts"],
    gated_linear_unit: ["swiglu", "quick_geglu", "gated_linear_unit"].some((name) => args[name] === true),
    vocab_size: args["vocab_size"] ?? args["padded_vocab_size"],
    share_embeddings_and_output_weights: !untied,
    [ZERO_CENTERED]: args["apply_layernorm_1p"],
  };
}

/** Megatron-Bridge and NeMo have as many positions as a sequence has tokens. */
function fromConfig(config: Fields): Fields {
  return { max_position_embeddings: config["seq_length"], ...config };
}

/** Refuses what states another network than a GPT. Throws UNKNOWN_ARCHITECTURE with a hint. */
export function refuseForeign(stated: Fields, where: string, hint: string): void {
  const foreign = FOREIGN.find((name) => stated[name] !== undefined && stated[name] !== null && stated[name] !== false);
  if (foreign === undefined) return;
  throw new PruneError("UNKNOWN_ARCHITECTURE", `${where} sets ${foreign}: no family table for such a Megatron model`, { hint });
}

function describe(stated: Fields, stored: readonly StoredTensor[], path: string): Fields {
  refuseForeign(stated, path, "put the config.json of its Hugging Face family into the folder, if that family is known");
  const hidden = stated["hidden_size"];
  const ffn = stated["ffn_hidden_size"] ?? (typeof hidden === "number" ? 4 * hidden : undefined);
  const filled: Fields = {
    vocab_size: stored.find(({ name }) => name.endsWith(EMBEDDING))?.shape[0],
    ffn_hidden_size: ffn,
    moe_ffn_hidden_size: ffn,
    share_embeddings_and_output_weights: !stored.some(({ name }) => name.endsWith(OUTPUT_LAYER)),
    ...Object.fromEntries(Object.entries(stated).filter(([, value]) => value !== null && value !== undefined)),
  };
  const fields = FIELDS.filter((name) => filled[name] !== undefined).map((name): [string, unknown] => {
    if (isPlain(filled[name])) return [name, filled[name]];
    throw new PruneError("BAD_CONFIG", `${path}: ${name} is no number, text, switch or list of numbers`);
  });
  return { architectures: [MODEL_CLASS], ...Object.fromEntries(fields) };
}

function isPlain(value: unknown): boolean {
  if (Array.isArray(value)) return value.every((entry) => typeof entry === "number");
  return ["number", "string", "boolean"].includes(typeof value);
}
