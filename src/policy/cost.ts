import type { Architecture } from "./architecture.js";
import { architectureRows, rowShape } from "./tensors.js";

/** Elements of all weights, tied ones once: the sum over the family's rows of the product of their axes. */
export function countParams(architecture: Architecture): number {
  let params = 0;
  for (const row of architectureRows(architecture)) {
    if (row.shared) continue;
    const elements = rowShape(row, architecture).reduce((product, size) => product * size, 1);
    params += elements * (row.perLayer ? architecture.hyperparameters.num_layers : 1);
  }
  return params;
}

/** Parameters that one token passes through; in a dense model, all of them. */
export function countActiveParams(architecture: Architecture): number {
  return countParams(architecture);
}
