import type { ModuleSizes } from "./child.js";

/** A field of a config, and the convolution whose outputs it counts: of each stage in turn where the pattern has one. */
interface Field {
  readonly name: string;
  readonly module: RegExp;
}

const STAGED_BLOCKS: readonly Field[] = [
  { name: "embedding_size", module: /(^|\.)embedder\.embedder\.convolution$/ },
  { name: "hidden_sizes", module: /(^|\.)encoder\.stages\.(?<stage>\d+)\.layers\.0\.layer\.\d+\.convolution$/ },
];
const CONVNEXT: readonly Field[] = [{ name: "hidden_sizes", module: /(^|\.)encoder\.stages\.(?<stage>\d+)\.layers\.0\.dwconv$/ }];

/** By `model_type`, the fields of transformers' configs that count channels. Where a family has none, no config expresses a child. */
const FAMILIES: Readonly<Record<string, readonly Field[]>> = {
  resnet: STAGED_BLOCKS,
  regnet: STAGED_BLOCKS,
  convnext: CONVNEXT,
  convnextv2: CONVNEXT,
};

/**
 * The fields of a config that would have to change for it to make a child of these sizes; undefined where the family has none. Whether the
 * config then makes that child, transformers alone can tell.
 */
export function configPatch(
  config: Readonly<Record<string, unknown>>,
  layers: readonly ModuleSizes[],
): Readonly<Record<string, unknown>> | undefined {
  const { model_type } = config;
  const fields = typeof model_type === "string" && Object.hasOwn(FAMILIES, model_type) ? FAMILIES[model_type] : undefined;
  if (!fields) return undefined;
  const patch: Record<string, unknown> = {};
  for (const { name, module } of fields) {
    const sizes = sizesBy(module, layers);
    if (sizes.size > 0) patch[name] = sizes.get("") ?? [...sizes.values()];
  }
  return { ...patch, ...groupWidths(config, patch["hidden_sizes"]) };
}

/** The outputs of matching modules by stage; of several in a stage, the last one's. */
function sizesBy(pattern: RegExp, layers: readonly ModuleSizes[]): ReadonlyMap<string, number> {
  const sizes = new Map<string, number>();
  for (const { module, attributes } of layers) {
    const found = pattern.exec(module);
    const size = attributes["out_channels"];
    if (found && size !== undefined) sizes.set(found.groups?.["stage"] ?? "", size);
  }
  return sizes;
}

/** RegNet's convolutions keep as many groups as they had, of fewer channels each: where those are a whole number, the config can say so. */
function groupWidths({ groups_width, hidden_sizes }: Readonly<Record<string, unknown>>, sizes: unknown): { groups_width?: number } {
  const [parent, child] = [firstOf(hidden_sizes), firstOf(sizes)];
  if (typeof groups_width !== "number" || parent === undefined || child === undefined) return {};
  const width = (groups_width * child) / parent;
  return Number.isInteger(width) ? { groups_width: width } : {};
}

function firstOf(sizes: unknown): number | undefined {
  const [first] = Array.isArray(sizes) ? (sizes as unknown[]) : [];
  return typeof first === "number" ? first : undefined;
}
