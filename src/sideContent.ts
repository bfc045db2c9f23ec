import { dirname, join } from "node:path";
import { syncFolder } from "./checkpoint/atomicFile.js";
import { INDEX_FILE } from "./checkpoint/folder.js";
import { MANIFEST_FILE } from "./checkpoint/manifest.js";
import type { ChildFiles } from "./checkpoint/megatron/childFiles.js";
import { PLAN_FILE } from "./checkpoint/planFile.js";
import { carrySideFiles, findSideFiles, type SideFiles, type Staging, stageFile } from "./checkpoint/staging.js";
import type { ChildLayout } from "./childLayout.js";

/** What a child has besides weights, plan and manifest: files of its parent's, and those with its own sizes. */
export interface SideContent extends Pick<ChildFiles, "written"> {
  readonly carried: readonly { readonly from: string; readonly into: string; readonly files: SideFiles }[];
}

/** The shards of a child, and the folder within it that they lie in where it is a torch_dist save. */
export interface StagedShards extends Pick<ChildLayout, "save"> {
  readonly shards: readonly { readonly file: string; readonly tensors: readonly { readonly name: string; readonly bytes: number }[] }[];
}

/** Finds all of that before anything is written. Throws PATH_DENIED for a file that cannot be read. */
export async function gatherFiles({ carried, written }: ChildFiles): Promise<SideContent> {
  const found = carried.map(async ({ from, into, but, pickled }) => ({
    from,
    into,
    files: await findSideFiles(from, [...but, PLAN_FILE, MANIFEST_FILE], pickled),
  }));
  return { carried: await Promise.all(found), written };
}

/** Puts everything but the weights into the child; last what tells loaders that it is one. */
export async function stageFiles(
  staging: Staging,
  made: StagedShards,
  { carried, written }: SideContent,
  own: ReadonlyMap<string, string>,
): Promise<void> {
  const folder = made.save?.name ?? "";
  for (const { from, into, files } of carried) await carrySideFiles(from, staging, files, into);
  for (const [name, content] of own) await stageFile(staging, join(folder, name), content);
  if (!made.save && made.shards.length > 1) await stageFile(staging, INDEX_FILE, formatJson(describeIndex(made)));
  for (const [name, content] of written) await stageFile(staging, name, content);
  if (!staging.flush) return;
  for (const changed of new Set([folder, ...[...written.keys()].map(dirname)])) await syncFolder(join(staging.child, changed));
}

function describeIndex({ shards }: StagedShards): unknown {
  const places = shards.flatMap(({ file, tensors }) => tensors.map(({ name }): [string, string] => [name, file]));
  const bytes = shards.reduce((sum, { tensors }) => tensors.reduce((inner, tensor) => inner + tensor.bytes, sum), 0);
  return { metadata: { total_size: bytes }, weight_map: Object.fromEntries(places.sort(([a], [b]) => (a < b ? -1 : 1))) };
}

/** An object as the child's files have it. */
export function formatJson(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
