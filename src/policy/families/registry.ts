import { PruneError } from "../../errors.js";
import { suggestName } from "../nearest.js";
import { bert } from "./bert.js";
import { gemma3 } from "./gemma3.js";
import { gptj } from "./gptj.js";
import { gptOss } from "./gptOss.js";
import { llama } from "./llama.js";
import { megatronGpt } from "./megatronGpt.js";
import { mistral } from "./mistral.js";
import { mixtral } from "./mixtral.js";
import { nemotron } from "./nemotron.js";
import { nemotronH } from "./nemotronH.js";
import { qwen2 } from "./qwen2.js";
import { qwen2Moe } from "./qwen2Moe.js";
import { qwen3 } from "./qwen3.js";
import { qwen3Moe } from "./qwen3Moe.js";
import type { FamilyTable } from "./table.js";

/** Every family that prunebridge can prune. */
export const FAMILIES: readonly FamilyTable[] = [
  llama,
  mistral,
  qwen2,
  qwen3,
  nemotron,
  gemma3,
  mixtral,
  qwen2Moe,
  qwen3Moe,
  gptOss,
  nemotronH,
  megatronGpt,
  ...bert,
  gptj,
];

/** The family of a config.json, by its `architectures`. Throws UNKNOWN_ARCHITECTURE. */
export function findFamily(config: Readonly<Record<string, unknown>>, where: string): FamilyTable {
  const named: unknown = Array.isArray(config["architectures"]) ? config["architectures"][0] : undefined;
  if (typeof named !== "string") {
    throw new PruneError("UNKNOWN_ARCHITECTURE", `${where} names no model class in "architectures"`, {
      hint: `set "architectures" to the transformers class, for example ["LlamaForCausalLM"]`,
    });
  }
  const found = FAMILIES.find((table) => table.architectures.includes(named));
  if (found) return found;
  const known = FAMILIES.flatMap((table) => table.architectures);
  throw new PruneError("UNKNOWN_ARCHITECTURE", `${where}: no family table for the architecture ${named}`, {
    hint: suggestName(named, known),
  });
}
