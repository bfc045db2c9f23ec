import type { CutModel, OpenModel, Sliced } from "../gen/prunebridge/v1/work.js";
import type { ModuleSizes } from "../policy/network/child.js";
import type { RunOptions } from "../progress.js";
import type { ShimSession } from "./session.js";
import { type ShardWork, toWireShards } from "./storageWork.js";
import { type IndexSets, indexSetFeed, resultOf, type StoredSlice, toWireSlice } from "./wire.js";

/** Loads a checkpoint folder; gives the id that the shim knows it by. */
export async function openModel(session: ShimSession, value: OpenModel, options: RunOptions): Promise<string> {
  const done = await session.run({ $case: "openModel", value }, options);
  return resultOf(done, "modelOpened").modelId;
}

/** Frees a model, or a view of one. A shim that is gone holds none any more, which is no failure. */
export async function closeModel(session: ShimSession, modelId: string): Promise<void> {
  try {
    await session.run({ $case: "closeModel", value: { modelId } });
  } catch (error) {
    if (!session.isGone(error)) throw error;
  }
}

/** What makes a child of a model that is open: a config from which all of it follows, or the modules that change. */
export type Child = { readonly indexSets: IndexSets; readonly tensors: readonly StoredSlice[] } & (
  | { readonly configJson: string; readonly modules?: never }
  | { readonly modules: readonly ModuleSizes[]; readonly configJson?: never }
);

/** Opens a view of a loaded model as its child, which leaves it as it is; gives the view's id. `units` are modules made as a whole. */
export async function openSubnet(
  session: ShimSession,
  modelId: string,
  child: Child & { readonly units?: readonly string[] },
  options: RunOptions,
): Promise<string> {
  const feed = indexSetFeed(child.indexSets);
  const value = { modelId, feedId: feed.id, ...toWireChild(child), units: [...(child.units ?? [])] };
  return resultOf(await session.run({ $case: "openSubnet", value }, options, feed), "subnetOpened").modelId;
}

/** Cuts a loaded model where it stands. */
export async function cutModel(session: ShimSession, modelId: string, child: Child, options: RunOptions): Promise<void> {
  const feed = indexSetFeed(child.indexSets);
  const value = { modelId, feedId: feed.id, ...toWireChild(child) };
  await session.run({ $case: "cutModel", value }, options, feed);
}

/** Saves a child of a job's model from its live weights, which all of its ranks do together. */
export async function saveModel(
  session: ShimSession,
  modelId: string,
  { jobDir, indexSets, shards, flush, sha256 }: Omit<ShardWork, "sourceDir" | "torchDist">,
  options: RunOptions,
): Promise<Sliced> {
  const feed = indexSetFeed(indexSets);
  const value = { modelId, jobDir, feedId: feed.id, shards: toWireShards(shards), skipFlush: !flush, sha256 };
  return resultOf(await session.run({ $case: "saveModel", value }, options, feed), "sliced");
}

function toWireChild({ tensors, configJson = "", modules = [] }: Child): Omit<CutModel, "modelId" | "feedId"> {
  const sizes = modules.map(({ module, attributes }) => ({ module, attributes: { ...attributes } }));
  return { tensors: tensors.map(toWireSlice), configJson, modules: sizes };
}
