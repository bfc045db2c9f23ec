import { patchConfigText } from "../checkpoint/json.js";
import type { PlanFile } from "../checkpoint/planFile.js";
import type { Parent } from "../inspect.js";
import { changedModules } from "../policy/gradients/modules.js";
import { type Slices, sliceTensors } from "../policy/slices.js";
import { expectedTensors, nameAt } from "../policy/tensors.js";
import type { Child } from "../shim/modelWork.js";

/** How a live model becomes a child: slices of its own tensors, and the modules that are made together when the child is only looked at. */
export type LiveCut = Child & { readonly units: readonly string[] };

/** The cut of a live model by a plan. Names and shapes are those of transformers' modules, whatever layout the checkpoint is stored in. */
export function liveCut({ checkpoint, architecture }: Parent, plan: PlanFile): LiveCut {
  const { indexSets, tensors } = sliceTensors(architecture, plan.kept, expectedTensors(architecture));
  const cut = { indexSets, tensors: liveSlices(tensors) };
  if (plan.layers) return { ...cut, modules: changedModules(architecture, plan.layers), units: [] };
  const layers = plan.child.hyperparameters.num_layers;
  const layerModule = architecture.table.hooks.find(({ importance }) => importance === "layer")?.module ?? "";
  return {
    ...cut,
    configJson: patchConfigText(checkpoint.configText, plan.config),
    units: Array.from({ length: layers }, (_, layer) => nameAt(layerModule, { layer })),
  };
}

/** Slices of a live model's tensors. It may be open in another dtype than it is stored in: the shim looks at neither file nor dtype. */
export function liveSlices(tensors: Slices["tensors"]): Child["tensors"] {
  return tensors.map(({ parts, ...slice }) => ({
    ...slice,
    parts: parts.map((part) => ({ ...part, source: { ...part.source, dtype: "F32", file: "" } })),
  }));
}
