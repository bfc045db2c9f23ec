import { type Command, InvalidArgumentError } from "commander";
import { PruneError } from "../index.js";
import { parseCount, parseMemory } from "./humanNumbers.js";
import { positiveInteger } from "./options.js";

/** Upper bounds on what a subnet costs. */
export interface BoundFlags {
  readonly params?: number | string;
  readonly activeParams?: number | string;
  readonly memoryMb?: number | string;
  readonly flops?: number | string;
}

/** How the space of sizes is laid out and searched. */
export interface SpaceFlags {
  readonly topK?: number;
  readonly maxWidthPruning?: number;
  readonly maxDepthPruning?: number;
  readonly hparamsToSkip?: string[];
  readonly hiddenSizeDivisor?: number;
  readonly ffnHiddenSizeDivisor?: number;
  readonly mambaHeadDimDivisor?: number;
  readonly numMoeExpertsDivisor?: number;
  readonly numLayersDivisor?: number;
}

/** What judges candidates. */
export interface JudgeFlags {
  readonly scoreData?: string;
  readonly scoreFunc?: string;
}

/** Flags that say how candidates are searched and judged. */
export const SEARCH_ONLY: readonly (keyof SpaceFlags | keyof JudgeFlags)[] = [
  "scoreData",
  "scoreFunc",
  "topK",
  "maxWidthPruning",
  "maxDepthPruning",
  "hparamsToSkip",
  "hiddenSizeDivisor",
  "ffnHiddenSizeDivisor",
  "mambaHeadDimDivisor",
  "numMoeExpertsDivisor",
  "numLayersDivisor",
];

/** `--params`, `--active-params`, `--memory-mb` and `--flops`. */
export function withBoundFlags(to: Command): Command {
  return to
    .option("--params <n>", "at most this many parameters: 6e9, 6B or 60%", parseCount)
    .option("--active-params <n>", "at most this many active parameters", parseCount)
    .option("--memory-mb <n>", "at most this much memory for weights, cache and states: MiB, 12GiB or 60%", parseMemory)
    .option("--flops <n>", "at most this many operations for a batch", parseCount);
}

/** `--top-k`, the shares that may go, and the steps. */
export function withSpaceFlags(to: Command): Command {
  return to
    .option("--top-k <n>", "candidates, the largest first (default: 10)", positiveInteger)
    .option("--max-width-pruning <share>", "largest share of a width that may go (default: 0.4)", share)
    .option("--max-depth-pruning <share>", "largest share of the layers that may go (default: 0.2)", share)
    .option("--hparams-to-skip <names>", "hyperparameters that keep their size, with commas between", (names: string) => names.split(","))
    .option("--hidden-size-divisor <n>", "step of hidden_size (default: 256)", positiveInteger)
    .option("--ffn-hidden-size-divisor <n>", "step of FFN widths, experts' included (default: 512)", positiveInteger)
    .option("--mamba-head-dim-divisor <n>", "step of mamba_head_dim (default: 8)", positiveInteger)
    .option("--num-moe-experts-divisor <n>", "step of num_moe_experts (default: 8)", positiveInteger)
    .option("--num-layers-divisor <n>", "step of num_layers (default: 2)", positiveInteger);
}

/** The bounds that were given, as prune() and search() take them. */
export function boundsOf({ params, activeParams, memoryMb, flops }: BoundFlags): Record<string, number | string> {
  return defined({ params, active_params: activeParams, memory_mb: memoryMb, flops });
}

/** The options of the search that were given. */
export function searchOptionsOf({ topK, maxWidthPruning, maxDepthPruning, hparamsToSkip }: SpaceFlags): Partial<SpaceFlags> {
  return defined({ topK, maxWidthPruning, maxDepthPruning, hparamsToSkip });
}

/** The steps that were given, under the reference's names. */
export function divisorsOf(flags: SpaceFlags): Record<string, number> {
  return defined({
    hidden_size_divisor: flags.hiddenSizeDivisor,
    ffn_hidden_size_divisor: flags.ffnHiddenSizeDivisor,
    mamba_head_dim_divisor: flags.mambaHeadDimDivisor,
    num_moe_experts_divisor: flags.numMoeExpertsDivisor,
    num_layers_divisor: flags.numLayersDivisor,
  });
}

/** Refuses what a run to given sizes would ignore. Throws BAD_OPTION. */
export function refuseSearchFlags(flags: SpaceFlags & JudgeFlags): void {
  const what = "--export-config states the sizes, and a search under bounds alone uses";
  refuseFlags(flags, SEARCH_ONLY, what, "leave one or the other out; bounds are --params, --active-params, --memory-mb and --flops");
}

/** Throws BAD_OPTION that ends with those of some flags that were given, where any were. */
export function refuseFlags<Flags extends object>(
  flags: Flags,
  names: readonly (keyof Flags & string)[],
  what: string,
  hint: string,
): void {
  const given = names.filter((name) => flags[name] !== undefined).map(flagOf);
  if (given.length > 0) throw new PruneError("BAD_OPTION", `${what} ${given.join(" and ")}`, { hint });
}

/** How a flag is written. */
export function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

function defined<T extends object>(record: T): { [name in keyof T]-?: Exclude<T[name], undefined> } {
  const entries = Object.entries(record).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as ReturnType<typeof defined<T>>; // what was undefined is not there
}

function share(text: string): number {
  const value = Number(text);
  if (text.trim() !== "" && value >= 0 && value < 1) return value;
  throw new InvalidArgumentError("it must be a share from 0 to below 1.");
}
