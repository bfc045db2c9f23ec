import { PruneError } from "../errors.js";
import type { Architecture } from "./architecture.js";
import { type ArchitectureRow, architectureRows, countPlaces, rowPlaces, rowShape } from "./tensors.js";

/** Elements of all stored tensors, tied ones once: the sum over the family's rows of the product of their axes. Throws BAD_CONFIG past 2^53. */
export function countParams(architecture: Architecture): number {
  return sumRows(architecture, (row, elements) => (row.shared ? 0 : elements));
}

/** Parameters that one token passes through: of the experts only the top k, and no buffers. In a dense model, all of them. */
export function countActiveParams(architecture: Architecture): number {
  const { num_moe_experts: experts = 1, moe_router_topk: topk = 1 } = architecture.hyperparameters;
  return sumRows(architecture, (row, elements) => {
    if (row.shared || row.buffer) return 0;
    return row.routed ? (elements / experts) * topk : elements;
  });
}

function elementsAt(row: ArchitectureRow, architecture: Architecture, layer?: number): number {
  return rowShape(row, architecture, layer).reduce((product, size) => product * size, 1);
}

function sumRows(architecture: Architecture, count: (row: ArchitectureRow, elements: number) => number): number {
  const total = architectureRows(architecture).reduce((sum, row) => {
    if (!architecture.layerSizes || !row.perLayer) return sum + count(row, elementsAt(row, architecture) * countPlaces(row, architecture));
    return [...rowPlaces(row, architecture)].reduce((all, { layer }) => all + count(row, elementsAt(row, architecture, layer)), sum);
  }, 0);
  if (total <= Number.MAX_SAFE_INTEGER) return total;
  throw new PruneError("BAD_CONFIG", `the config makes ${total.toPrecision(3)} parameters, more than can be counted`, {
    hint: "correct the sizes in config.json",
  });
}
