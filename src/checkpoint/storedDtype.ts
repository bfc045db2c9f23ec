import type { Dtype } from "../tensor.js";
import type { Checkpoint } from "./folder.js";

const TORCH_NAMES: Readonly<Partial<Record<Dtype, string>>> = { F32: "float32", BF16: "bfloat16", F16: "float16", F64: "float64" };

/** What transformers opens a checkpoint in where it is not told: what its config states, or else what its first weights are in. */
export function storedDtype({ config, tensors }: Pick<Checkpoint, "config" | "tensors">): string {
  const stated = config["dtype"] ?? config["torch_dtype"];
  if (typeof stated === "string") return stated.replace(/^torch\./, "");
  return tensors.map(({ dtype }) => TORCH_NAMES[dtype]).find((name) => name !== undefined) ?? "float32";
}
