import { createHash } from "node:crypto";
import { z } from "zod";
import { PruneError } from "../errors.js";
import { writeFileAtomically } from "./atomicFile.js";
import { parseJsonObject, readDocument } from "./json.js";
import { countPositions, formatRanges, parseRanges, positionsOf, type Range } from "./ranges.js";

export const PLAN_FILE = "plan.json";

// Positions are bounded by any real dimension, and all of them together by what the largest networks keep, so that forged ranges cannot
// exhaust memory.
const MAX_POSITION = 16_777_216;
export const MAX_POSITIONS = 67_108_864;

/** Kept positions by dimension, as policy has them. */
type KeptTree = readonly number[] | { readonly [outer: string]: KeptTree };

/** Kept positions as a file has them. */
type RangeTree = readonly Range[] | { readonly [outer: string]: RangeTree };

const ranges = z.string().transform((text, context): readonly Range[] => {
  const parsed = parseRanges(text, MAX_POSITION);
  if (parsed) return parsed;
  context.addIssue({ code: "custom", message: `"${text.slice(0, 60)}" is not a list of ascending ranges such as "0-3,7"` });
  return z.NEVER;
});
const byPosition = <T extends z.ZodType>(inner: T): z.ZodRecord<z.ZodString, T> => z.record(z.string().regex(/^\d+$/), inner);
const keptSets = z.strictObject({
  layer: z.exactOptional(ranges),
  hidden: z.exactOptional(ranges),
  ffn: z.exactOptional(byPosition(ranges)),
  group: z.exactOptional(byPosition(ranges)),
  heads_of_group: z.exactOptional(byPosition(byPosition(ranges))),
  expert: z.exactOptional(byPosition(ranges)),
  moe_ffn: z.exactOptional(byPosition(byPosition(ranges))),
  moe_shared_ffn: z.exactOptional(byPosition(ranges)),
  mamba_heads_of_group: z.exactOptional(byPosition(byPosition(ranges))),
  mamba_head_dim: z.exactOptional(byPosition(ranges)),
});
const size = z.number().int().positive();
const hyperparameters = z.strictObject({
  num_layers: size,
  hidden_size: size,
  ffn_hidden_size: z.exactOptional(size),
  num_attention_heads: size,
  num_query_groups: size,
  kv_channels: size,
  vocab_size: size,
  max_position_embeddings: z.exactOptional(size),
  type_vocab_size: z.exactOptional(size),
  num_labels: z.exactOptional(size),
  num_moe_experts: z.exactOptional(size),
  moe_ffn_hidden_size: z.exactOptional(size),
  moe_shared_expert_intermediate_size: z.exactOptional(size),
  moe_router_topk: z.exactOptional(size),
  moe_router_num_groups: z.exactOptional(size),
  moe_router_group_topk: z.exactOptional(size),
  moe_latent_size: z.exactOptional(size),
  mamba_num_heads: z.exactOptional(size),
  mamba_head_dim: z.exactOptional(size),
  mamba_num_groups: z.exactOptional(size),
  mamba_state_dim: z.exactOptional(size),
  mamba_conv_kernel: z.exactOptional(size),
});
const layerSizes = z.strictObject({ ffn_hidden_size: size, num_attention_heads: size, num_query_groups: size });
const side = z.strictObject({ hyperparameters, params: z.number(), activeParams: z.number() });

const planFile = z.strictObject({
  format: z.literal("prunebridge.plan/1"),
  mode: z.enum(["mcore_gpt_minitron", "gradnas"]),
  family: z.string(),
  exportConfig: z.record(z.string(), z.number()),
  /** Fingerprint of the checkpoint that the plan was made for; null where it was made from a bare config. */
  fingerprint: z.string().nullable(),
  parent: side,
  child: side,
  /** Where layers differ: the sizes of each. */
  layers: z.exactOptional(z.array(layerSizes).readonly()),
  config: z.record(z.string(), z.unknown()),
  warnings: z.array(z.string()).readonly(),
  kept: keptSets,
});

type KeptName = keyof z.infer<typeof keptSets>;

/** A plan as a file holds it. */
export type PlanFile = Omit<z.infer<typeof planFile>, "format" | "kept"> & { readonly kept: { readonly [name in KeptName]?: KeptTree } };

/** Reads a plan. Throws PATH_NOT_FOUND, or BAD_PLAN that says which field is wrong. */
export async function readPlanFile(path: string): Promise<PlanFile> {
  return parsePlan(await readDocument(path, "BAD_PLAN"), path);
}

/** Parses the text of a plan. Throws BAD_PLAN that says which field of `where` is wrong. */
export function parsePlan(text: string, where: string): PlanFile {
  const parsed = planFile.safeParse(parseJsonObject(text, where, "BAD_PLAN"));
  if (!parsed.success) throw new PruneError("BAD_PLAN", `${where} is not a plan: ${z.prettifyError(parsed.error)}`);
  const { format: _format, kept, ...plan } = parsed.data;
  const trees = Object.entries(kept);
  const positions = trees.reduce((sum, [, tree]) => sum + countTree(tree), 0);
  if (positions > MAX_POSITIONS) {
    throw new PruneError("BAD_PLAN", `${where} keeps ${positions} positions, more than the ${MAX_POSITIONS} that are read`);
  }
  return { ...plan, kept: Object.fromEntries(trees.map(([name, tree]) => [name, expandTree(tree)])) };
}

function countTree(tree: RangeTree): number {
  if (isLeaf(tree)) return countPositions(tree);
  return Object.values(tree).reduce((sum, inner) => sum + countTree(inner), 0);
}

function expandTree(tree: RangeTree): KeptTree {
  if (isLeaf(tree)) return positionsOf(tree);
  return Object.fromEntries(Object.entries(tree).map(([outer, inner]) => [outer, expandTree(inner)]));
}

/** Writes a plan in one step. */
export async function writePlanFile(path: string, plan: PlanFile): Promise<void> {
  await writeFileAtomically(path, encodePlan(plan));
}

/** The text of a plan file: fields in one order, kept positions as ranges. */
export function encodePlan(plan: PlanFile): string {
  const { mode, family, exportConfig, fingerprint, config, warnings } = plan;
  const layers = plan.layers?.map((sizes) => inOrder(layerSizes.shape, sizes));
  const [parent, child] = [plan.parent, plan.child].map((one) => ({
    ...one,
    hyperparameters: inOrder(hyperparameters.shape, one.hyperparameters),
  }));
  const kept = inOrder(keptSets.shape, plan.kept, formatTree);
  const file = {
    format: "prunebridge.plan/1",
    mode,
    family,
    exportConfig,
    fingerprint,
    parent,
    child,
    ...(layers && { layers }),
    config,
    warnings,
    kept,
  };
  return `${JSON.stringify(file, null, 2)}\n`;
}

/** A record in the order of a schema: the text of a plan, which is hashed, must not depend on whether it was read or made. */
function inOrder<T>(
  shape: object,
  record: Readonly<Record<string, T>>,
  format: (value: T) => unknown = (value) => value,
): Record<string, unknown> {
  return Object.fromEntries(Object.keys(shape).flatMap((name) => (record[name] === undefined ? [] : [[name, format(record[name])]])));
}

function formatTree(tree: KeptTree): unknown {
  if (isLeaf(tree)) return formatRanges(tree);
  return Object.fromEntries(Object.entries(tree).map(([outer, inner]) => [outer, formatTree(inner)]));
}

/** SHA-256 of a plan's text. */
export function hashPlan(plan: PlanFile): string {
  return `sha256:${createHash("sha256").update(encodePlan(plan)).digest("hex")}`;
}

function isLeaf<T>(tree: readonly T[] | object): tree is readonly T[] {
  return Array.isArray(tree);
}
