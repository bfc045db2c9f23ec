import { findNodeAtLocation, parseTree } from "jsonc-parser";
import { z } from "zod";
import { PruneError } from "../errors.js";
import { parseJsonObject, readDocument } from "./json.js";

export const ARCHITECTURE_FILE = "architecture.json";

// How far encoding moves a config to the right.
const INDENTED = "\n    ";

const built = z.strictObject({
  /** The Python function that gives the whole network: `package.module:function`. */
  entrypoint: z.string().min(1),
  /** Its named arguments. */
  kwargs: z.record(z.string(), z.unknown()),
});
const ofTransformers = z.strictObject({
  /** The class of transformers, `ResNetForImageClassification` for one. */
  transformers: z.string().min(1),
  /** The whole network's config.json. */
  config: z.record(z.string(), z.unknown()),
});

const architectureFile = z.strictObject({
  format: z.literal("prunebridge.architecture/1"),
  source: z.union([built, ofTransformers]),
  /** By dotted module path, the attributes that count what was cut. */
  modules: z.record(z.string(), z.record(z.string(), z.number().int().nonnegative())),
  /** Shapes of all parameters and persistent buffers. */
  tensors: z.record(z.string(), z.array(z.number().int().nonnegative()).readonly()),
});

type Written = z.infer<typeof architectureFile>;

/**
 * What the weights of a pruned network belong to, where no config expresses it: the whole network, and the sizes of those modules that have
 * others. Lies beside the weights, in the place of a config.json.
 */
export interface ArchitectureFile extends Pick<Written, "modules" | "tensors"> {
  readonly source: ArchitectureSource;
}

/**
 * How the whole network is built: by a Python function, or by a class of transformers of a config. The config is kept as it is written:
 * loaders tell `0.0` from `0`, which no JavaScript number does.
 */
export type ArchitectureSource =
  | z.infer<typeof built>
  | { readonly transformers: string; readonly configText: string; readonly entrypoint?: never };

/** Reads an architecture file. Throws PATH_NOT_FOUND, or BAD_CONFIG that says which field is wrong. */
export async function readArchitectureFile(path: string): Promise<ArchitectureFile> {
  return parseArchitectureFile(await readDocument(path, "BAD_CONFIG"), path);
}

/** Parses the text of an architecture file. Throws BAD_CONFIG that says which field of `where` is wrong. */
export function parseArchitectureFile(text: string, where: string): ArchitectureFile {
  const parsed = architectureFile.safeParse(parseJsonObject(text, where, "BAD_CONFIG"));
  if (!parsed.success) throw new PruneError("BAD_CONFIG", `${where} is no architecture file: ${z.prettifyError(parsed.error)}`);
  const { source, modules, tensors } = parsed.data;
  if ("entrypoint" in source) return { source, modules, tensors };
  return {
    source: { transformers: source.transformers, configText: textAt(text, ["source", "config"]).replaceAll(INDENTED, "\n") },
    modules,
    tensors,
  };
}

/** The text of an architecture file: each tensor on a line. */
export function encodeArchitectureFile({ source, modules, tensors }: ArchitectureFile): string {
  const shapes = Object.entries(tensors).map(([name, shape]) => `${JSON.stringify(name)}: [${shape.join(", ")}]`);
  const fields = {
    format: JSON.stringify("prunebridge.architecture/1"),
    source: encodeSource(source),
    modules: JSON.stringify(modules, null, 2),
    tensors: encodeFields(shapes),
  };
  return `${encodeFields(Object.entries(fields).map(([name, value]) => `"${name}": ${value}`))}\n`;
}

function encodeSource(source: ArchitectureSource): string {
  if (source.entrypoint !== undefined) return JSON.stringify(source, null, 2);
  return encodeFields([`"transformers": ${JSON.stringify(source.transformers)}`, `"config": ${source.configText.trim()}`]);
}

/** An object of fields that are text already. */
function encodeFields(fields: readonly string[]): string {
  const lines = fields.map((field) => `  ${field.replaceAll("\n", "\n  ")}`);
  return lines.length === 0 ? "{}" : `{\n${lines.join(",\n")}\n}`;
}

/** What a value of a JSON text is written as. */
function textAt(text: string, path: readonly string[]): string {
  const tree = parseTree(text);
  const node = tree && findNodeAtLocation(tree, [...path]);
  if (!node) throw new PruneError("INTERNAL", `${path.join(".")} was read, and is not found again`);
  return text.slice(node.offset, node.offset + node.length);
}
