import { basename } from "node:path";
import { PruneError } from "../errors.js";
import { parseJsonObject } from "./json.js";

/** Which shard holds which tensor. */
export interface ShardIndex {
  readonly path: string;
  readonly fileOf: ReadonlyMap<string, string>;
  /** The tensors of each file. */
  readonly files: ReadonlyMap<string, readonly string[]>;
}

/**
 * Parses the text of an index.
 *
 * @throws PruneError BAD_INDEX, also where it names what is no file beside it
 */
export function parseIndex(text: string, path: string): ShardIndex {
  const { weight_map: weightMap } = parseJsonObject(text, path, "BAD_INDEX");
  if (typeof weightMap !== "object" || weightMap === null || Array.isArray(weightMap)) {
    throw new PruneError("BAD_INDEX", `${path} has no weight_map`);
  }
  const fileOf = new Map<string, string>();
  const files = new Map<string, string[]>();
  for (const [tensor, file] of Object.entries(weightMap)) {
    if (typeof file !== "string" || file !== basename(file) || file.includes("\0") || !file.endsWith(".safetensors")) {
      throw new PruneError("BAD_INDEX", `${path} places ${tensor} in ${JSON.stringify(file)}, which is no file name beside it`);
    }
    fileOf.set(tensor, file);
    const tensors = files.get(file);
    if (tensors) tensors.push(tensor);
    else files.set(file, [tensor]);
  }
  return { path, fileOf, files };
}

/** Refuses a shard that does not hold exactly what the index says. Throws BAD_INDEX. */
export function checkShardContent({ path, fileOf, files }: ShardIndex, file: string, tensors: readonly { readonly name: string }[]): void {
  for (const { name } of tensors) {
    const stated = fileOf.get(name);
    if (stated === file) continue;
    throw new PruneError("BAD_INDEX", `${file} holds ${name}, which ${path} ${stated ? `places in ${stated}` : "does not name"}`);
  }
  const held = new Set(tensors.map(({ name }) => name));
  const missing = files.get(file)?.find((tensor) => !held.has(tensor));
  if (missing !== undefined) throw new PruneError("BAD_INDEX", `${path} places ${missing} in ${file}, which does not hold it`);
}
