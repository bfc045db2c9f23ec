import { PruneError } from "../errors.js";
import type { Architecture } from "./architecture.js";
import { keptBlocks } from "./axes/evaluate.js";
import { type Blocks, dimensionsOf } from "./axes/expression.js";
import { PRUNABLE, type PrunableName, prunableNames } from "./hyperparameters.js";
import type { MatchedTensor } from "./tensors.js";

/** The refusal of a cut that keeps a block in part which one scale of a quantised weight stands for; it says what can be cut instead. */
export function tornBlocks(
  architecture: Architecture,
  matched: readonly MatchedTensor[],
  { stored, row }: MatchedTensor,
  axis: number,
): PruneError {
  const torn = row.axes[axis];
  const size = torn?.kind === "blocks" ? torn.size : 1;
  const along = torn ? dimensionsOf(torn).join(" x ") : "";
  const { free, bound } = divideNames(architecture, matched);
  return new PruneError(
    "UNSUPPORTED_QUANTIZATION",
    `${stored.name} has one scale for each block of ${size} along axis ${axis}, ${along}, and the cut keeps a block in part`,
    {
      hint: [
        `here ${free.join(", ")} can be cut to any legal size`,
        ...(bound.length > 0 ? [`${bound.join(", ")} only in whole blocks: to multiples of them, and by position (skip_sorting)`] : []),
        "or prune the unquantised parent and quantise the child",
      ].join("; "),
    },
  );
}

/** Which hyperparameters can be cut without regard to blocks: those of which a single position can go from every weight. */
function divideNames(architecture: Architecture, matched: readonly MatchedTensor[]): { free: PrunableName[]; bound: PrunableName[] } {
  const axes = new Map<string, Blocks>();
  for (const { row } of matched) {
    for (const [index, axis] of row.axes.entries()) if (axis.kind === "blocks") axes.set(row.axisTexts[index] ?? "", axis);
  }
  const isFree = (name: PrunableName): boolean => {
    const dimension: string = PRUNABLE[name];
    const size = architecture.sizes[dimension] ?? 1;
    const rest = Array.from({ length: size - 1 }, (_, position) => position + 1);
    const kept = (named: string): readonly number[] | undefined => (named === dimension ? rest : undefined);
    return [...axes.values()].every((axis) => keptBlocks(axis, architecture.sizes, kept, {}) !== undefined);
  };
  const names = prunableNames(architecture.hyperparameters).filter((name) => (architecture.sizes[PRUNABLE[name]] ?? 1) > 1);
  return { free: names.filter(isFree), bound: names.filter((name) => !isFree(name)) };
}
