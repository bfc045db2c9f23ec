import type { Checkpoint } from "./checkpoint/folder.js";
import { commonEdit, type SaveFolder, saveFolder } from "./checkpoint/megatron/childFiles.js";
import { childStates, type SavePlace, savePlaces } from "./checkpoint/megatron/savePlaces.js";
import { LAYERS_AS_AXIS } from "./checkpoint/megatron/views.js";
import type { PlanFile } from "./checkpoint/planFile.js";
import { PruneError } from "./errors.js";
import { type Parent, weightsFor } from "./inspect.js";
import type { LayoutName } from "./policy/families/table.js";
import { keptLayers } from "./policy/plan.js";
import { slicesInto } from "./policy/rearrange.js";
import { layOutShards, type ShardLayout, torchDistName } from "./policy/shards.js";
import type { TensorSlice } from "./policy/slices.js";
import type { SaveBesides } from "./shim/storageWork.js";
import { byteLength } from "./tensor.js";

/** The formats that children are written in. */
export const FORMATS = ["safetensors", "torch_dist"] as const;

export type Format = (typeof FORMATS)[number];

/** A tensor to be cut, as it is laid out in a shard, and where in a torch_dist save it goes. */
export type SizedSlice = TensorSlice<Checkpoint["tensors"][number]> & { readonly bytes: number; readonly place?: SavePlace };

/** What a child is cut from and how it is laid out. */
export interface ChildLayout {
  readonly layout: LayoutName;
  readonly format: Format;
  readonly indexSets: ReadonlyMap<string, readonly number[]>;
  readonly shards: readonly ShardLayout<SizedSlice>[];
  /** Where the child is a torch_dist save: the folder of that, and what it has besides shards. */
  readonly save: SaveFolder | undefined;
  readonly torchDist: SaveBesides | undefined;
}

/** How a child is to be laid out. */
export interface LayoutOptions {
  /** As its parent is, or by another of the family's layouts. Default: as its parent. */
  readonly layout?: LayoutName;
  /** The files' format; torch_dist for a parent in it, in Megatron's layout. Default: the parent's where the layout is Megatron's, else safetensors. */
  readonly format?: Format;
}

/**
 * Lays a child out: tensors as the layout has them, spread over files of the format.
 *
 * @throws PruneError BAD_OPTION where the family has no such layout or it cannot be made, or the format is torch_dist where the parent or the
 *   layout is another
 */
export function layOutChild(parent: Parent, plan: PlanFile, options: LayoutOptions): ChildLayout {
  const { torchDist, megatron, dir, headers } = parent.checkpoint;
  const { asSave, matched } = weightsBy(parent, options, plan);
  if (plan.layers) checkLayered(parent, asSave, options.layout ?? matched.layout);
  const { indexSets, tensors } = slicesInto(options.layout, parent.architecture, plan.kept, matched);
  const common = { layout: options.layout ?? matched.layout, format: asSave ? "torch_dist" : "safetensors", indexSets } as const;
  const sized = tensors.map((slice) => ({
    ...slice,
    bytes: byteLength({ dtype: slice.parts[0]?.source.dtype ?? "U8", shape: slice.shape }),
  }));
  // The child's shards are no larger than the parent's: whoever could hold those can hold these.
  const parentShards = torchDist?.files.map(({ bytes }) => bytes) ?? headers.map(({ fileBytes }) => fileBytes);
  // Beside an architecture file lies one file of weights.
  const capacity = plan.layers ? Number.MAX_VALUE : Math.max(...parentShards);
  if (!asSave || !torchDist || !megatron)
    return { ...common, shards: layOutShards(sized, capacity), save: undefined, torchDist: undefined };
  const save = saveFolder(dir);
  const isStacked = torchDist.tensors.some(({ key }) => LAYERS_AS_AXIS.test(key));
  const places = savePlaces(
    sized.map(({ name }) => name),
    isStacked,
  );
  const placed = sized.map((slice, i): SizedSlice => ({ ...slice, ...(places[i] && { place: places[i] }) }));
  const emptyObjects = statesOf(parent, plan, torchDist.states);
  return {
    ...common,
    shards: layOutShards(placed, capacity, torchDistName),
    save,
    torchDist: { folder: save.name, emptyObjects, common: commonEdit(megatron, save, plan) },
  };
}

/** Refuses what {@link layOutChild} would refuse for any plan. */
export function checkLayout(parent: Parent, options: LayoutOptions): void {
  slicesInto(options.layout, parent.architecture, {}, weightsBy(parent, options).matched);
}

/** What the child is cut from, and whether it is a torch_dist save. */
function weightsBy(
  parent: Parent,
  { layout, format }: LayoutOptions,
  plan?: PlanFile,
): { asSave: boolean; matched: ReturnType<typeof weightsFor> } {
  const { torchDist } = parent.checkpoint;
  const asSave = (format ?? (torchDist && (layout ?? "megatron") === "megatron" ? "torch_dist" : "safetensors")) === "torch_dist";
  if (asSave) checkSave(parent, layout);
  return { asSave, matched: weightsFor(parent, asSave, plan) };
}

/** Only transformers' own modules are built by their sizes. */
function checkLayered({ architecture: { table } }: Parent, asSave: boolean, layout: LayoutName): void {
  if (!asSave && layout === table.live) return;
  throw new PruneError("BAD_OPTION", `layers of sizes of their own cannot be laid out as ${asSave ? "torch_dist" : layout}`, {
    hint: `write them as safetensors in the layout ${table.live}; or prune with { uniform: true }`,
  });
}

function checkSave({ checkpoint: { dir, torchDist } }: Parent, layout: LayoutName = "megatron"): void {
  if (torchDist && layout === "megatron") return;
  const detail = torchDist
    ? `the layout ${layout} is no Megatron's`
    : `${dir} is in safetensors, and has no common.pt that the child could have`;
  throw new PruneError("BAD_OPTION", `a child in the format torch_dist cannot be made: ${detail}`, { hint: "write it as safetensors" });
}

/** States keep to the layers and experts that the child has. */
function statesOf({ architecture }: Parent, { kept, child }: PlanFile, states: readonly string[]): string[] {
  const layers = keptLayers(kept, architecture.layers.length);
  const { num_layers, num_moe_experts = 0 } = child.hyperparameters;
  const layerOf = (layer: number): number | undefined => {
    const place = layers.indexOf(layer);
    return place < 0 ? undefined : place;
  };
  return childStates(states, { layers: num_layers, experts: num_moe_experts, layerOf });
}
