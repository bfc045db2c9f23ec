import { basename, dirname, join } from "node:path";
import { type Checkpoint, CONFIG_FILE } from "../folder.js";
import { patchConfigText } from "../json.js";
import type { PlanFile } from "../planFile.js";
import { childArguments, patchedSizes } from "./childSizes.js";
import { BACKEND_FILE, BRIDGE_CONFIG, COMMON_FILE, NEMO_CONFIG, TRACKER } from "./locate.js";

/** The folder of weights in a child's own, and what else tells loaders which that is. */
export interface SaveFolder {
  readonly name: string;
  /** The content of the tracker; NeMo has none. */
  readonly tracker: string | undefined;
}

/** A folder of the parent's whose files the child gets, but for some. */
export interface CarriedFolder {
  readonly from: string;
  /** Within the child. */
  readonly into: string;
  /** Paths within the folder. */
  readonly but: readonly string[];
  /** Whether pickled files are carried too: those of Megatron's that hold no weights. */
  readonly pickled: boolean;
}

/** Everything of a child besides weights, plan and manifest. */
export interface ChildFiles {
  readonly carried: readonly CarriedFolder[];
  /** Content by path within the child, in the order in which it is written. */
  readonly written: ReadonlyMap<string, string>;
}

const NEMO_WEIGHTS = "weights";

/** Where a child's save lies: as its parent's does, or as a release where that lies in a folder that no tracker can name. */
export function saveFolder(parentDir: string): SaveFolder {
  const name = basename(parentDir);
  if (name === NEMO_WEIGHTS) return { name, tracker: undefined };
  const iteration = /^iter_(\d{7,12})$/.exec(name)?.[1];
  return iteration === undefined ? { name: "release", tracker: "release" } : { name, tracker: String(Number(iteration)) };
}

/** What a child in safetensors has besides weights: its parent's files, with its own sizes where they state some. */
export async function filesBesideSafetensors({ dir, configText, megatron }: Checkpoint, plan: PlanFile): Promise<ChildFiles> {
  const written = new Map<string, string>();
  if (megatron?.names.has(BRIDGE_CONFIG)) written.set(BRIDGE_CONFIG, await patchedSizes(dir, BRIDGE_CONFIG, plan));
  written.set(CONFIG_FILE, patchConfigText(configText, plan.config));
  const but = [...written.keys(), ...(megatron ? [BACKEND_FILE] : [])];
  return { carried: [{ from: dir, into: "", but, pickled: false }], written };
}

/** What a child in a torch_dist folder has besides what its cutter writes, as Megatron-LM, Megatron-Bridge or NeMo 2 has it. */
export async function filesBesideSave({ dir, configText, megatron }: Checkpoint, save: SaveFolder, plan: PlanFile): Promise<ChildFiles> {
  const written = new Map<string, string>();
  const carried: CarriedFolder[] = [];
  if (save.tracker === undefined) {
    const root = dirname(dir);
    written.set(NEMO_CONFIG, await patchedSizes(root, NEMO_CONFIG, plan));
    carried.push({ from: join(root, dirname(NEMO_CONFIG)), into: dirname(NEMO_CONFIG), but: [basename(NEMO_CONFIG)], pickled: true });
  }
  if (megatron?.names.has(BRIDGE_CONFIG)) written.set(join(save.name, BRIDGE_CONFIG), await patchedSizes(dir, BRIDGE_CONFIG, plan));
  if (megatron?.names.has(CONFIG_FILE)) written.set(join(save.name, CONFIG_FILE), patchConfigText(configText, plan.config));
  carried.push({ from: dir, into: save.name, but: [BRIDGE_CONFIG, CONFIG_FILE, BACKEND_FILE, COMMON_FILE], pickled: true });
  if (save.tracker !== undefined) written.set(TRACKER, save.tracker);
  return { carried, written };
}

/**
 * What becomes of a parent's common.pt: where the arguments in it state the sizes, they get the child's, and the optimizer's part goes. Where
 * another file states them, it is carried unread: Megatron-Bridge and NeMo keep objects of any class in it.
 */
export function commonEdit(
  { names }: Pick<NonNullable<Checkpoint["megatron"]>, "names">,
  save: SaveFolder,
  plan: PlanFile,
): { arguments: Readonly<Record<string, unknown>>; leftOut: readonly string[] } | undefined {
  if (save.tracker === undefined || names.has(BRIDGE_CONFIG)) return undefined;
  return { arguments: childArguments(plan), leftOut: ["optimizer"] };
}
