import { join } from "node:path";
import { readDocument } from "../json.js";
import type { PlanFile } from "../planFile.js";
import { MODEL_SECTIONS } from "./locate.js";
import { LAYER_FIELDS } from "./modelConfig.js";
import { patchYamlText, readYamlObject } from "./yaml.js";

/** Sizes that pruning never changes: a Megatron config states them in other words, or states the length of sequences. */
const UNCHANGED = ["vocab_size", "max_position_embeddings"];

/** What follows from other sizes where it is not stated, and would change with them. */
const DERIVED = ["ffn_hidden_size", "kv_channels", "moe_ffn_hidden_size"];

type Sizes = Readonly<Record<string, unknown>>;

/** The sizes of a child as the fields of Megatron-Core's config state them. */
export function childSizes({ child, config }: PlanFile): Sizes {
  const sizes = Object.entries(child.hyperparameters).filter(([name]) => !UNCHANGED.includes(name));
  return {
    ...Object.fromEntries(sizes),
    ...Object.fromEntries(LAYER_FIELDS.filter((name) => name in config).map((name) => [name, config[name]])),
    // The heads for several tokens ahead are left out.
    ...("mtp_num_layers" in config && { mtp_num_layers: null }),
  };
}

/** The same as arguments of Megatron-LM's training script. */
export function childArguments(plan: PlanFile): Sizes {
  const sizes = childSizes(plan);
  const { num_layers, num_moe_experts } = plan.child.hyperparameters;
  return { ...sizes, encoder_num_layers: num_layers, ...(num_moe_experts !== undefined && { num_experts: num_moe_experts }) };
}

/**
 * The text of a config of Megatron-Bridge or NeMo with a child's sizes; all else stays as it is written.
 *
 * @param name - which of them it is, within the checkpoint's folder
 */
export async function patchedSizes(folder: string, name: keyof typeof MODEL_SECTIONS, plan: PlanFile): Promise<string> {
  const path = join(folder, name);
  const section = MODEL_SECTIONS[name];
  const stated = new Set(Object.keys((await readYamlObject(path))[section] ?? {}));
  const parent: Sizes = { ...plan.parent.hyperparameters };
  const changed = Object.entries(childSizes(plan)).filter(
    ([field, size]) => stated.has(field) || DERIVED.includes(field) || parent[field] !== size,
  );
  return patchYamlText(await readDocument(path, "BAD_CONFIG"), section, Object.fromEntries(changed), path);
}
