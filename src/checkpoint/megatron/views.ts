import { PruneError } from "../../errors.js";
import { byteLength } from "../../tensor.js";
import type { CheckpointTensor } from "../folder.js";
import { type DistTensor, METADATA_FILE } from "./distMetadata.js";

/** Part of a stored tensor that is a tensor of the model: all of it at given positions of its first axes. */
export interface View {
  readonly key: string;
  readonly index: readonly number[];
}

/** A tensor of the model as a torch_dist folder holds it. */
export interface ViewedTensor extends CheckpointTensor {
  readonly view: View;
}

// Where layers are all alike, and in experts, a number of the name becomes an axis of the tensor.
export const LAYERS_AS_AXIS = /(?<=(?:^|\.)decoder\.layers\.)(?!\d)/;
export const EXPERTS_AS_AXIS = /(?<=\.mlp\.experts\.)experts\.(?=linear_fc)/;
const SPLIT_GATE = /\.linear_fc1\.(?:weight|bias)_[wv]$/;

/**
 * The tensors of the model within the stored ones, under the names of Megatron-Core's modules.
 *
 * @throws PruneError BAD_TORCH_DIST where a tensor lacks the axes that its key promises
 */
export function viewTensors(tensors: readonly DistTensor[], where: string): ViewedTensor[] {
  return tensors.flatMap((tensor) => viewTensor(tensor, where));
}

function viewTensor({ key, dtype, shape }: DistTensor, where: string): ViewedTensor[] {
  if (SPLIT_GATE.test(key)) {
    throw new PruneError("BAD_TORCH_DIST", `${where} holds ${key}: the halves of a gated layer in tensors of their own`, {
      hint: "save the checkpoint again without singleton_local_shards",
    });
  }
  const axes = [LAYERS_AS_AXIS, EXPERTS_AS_AXIS].filter((axis) => axis.test(key));
  if (shape.length <= axes.length && axes.length > 0) {
    throw new PruneError(
      "BAD_TORCH_DIST",
      `${where} gives ${key} the shape [${shape.join(", ")}], which has no axis for its layers or experts`,
    );
  }
  const inner = shape.slice(axes.length);
  const bytes = byteLength({ dtype, shape: inner });
  return positions(shape.slice(0, axes.length)).map((index) => {
    const view = { key, index };
    return { name: nameAt(key, axes, index), dtype, shape: inner, bytes, file: METADATA_FILE, view };
  });
}

function nameAt(key: string, axes: readonly RegExp[], index: readonly number[]): string {
  return axes.reduce((name, axis, i) => name.replace(axis, axis === LAYERS_AS_AXIS ? `${index[i]}.` : `local_experts.${index[i]}.`), key);
}

/** Every position of a box. */
export function positions(sizes: readonly number[]): number[][] {
  return sizes.reduce<number[][]>((all, size) => all.flatMap((outer) => Array.from({ length: size }, (_, i) => [...outer, i])), [[]]);
}
