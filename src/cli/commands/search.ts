import { type Command, InvalidArgumentError } from "commander";
import { readParent, search } from "../../index.js";
import { parseCount, parseMemory } from "../humanNumbers.js";
import { command, positiveInteger } from "../options.js";
import { runCommand } from "../run.js";
import { formatSearch } from "../tables.js";

interface Flags {
  readonly json?: boolean;
  readonly params?: number | string;
  readonly activeParams?: number | string;
  readonly memoryMb?: number | string;
  readonly flops?: number | string;
  readonly topK?: number;
  readonly seqLength?: number;
  readonly batchSize?: number;
  readonly hiddenSizeDivisor?: number;
  readonly ffnHiddenSizeDivisor?: number;
  readonly numLayersDivisor?: number;
  readonly maxWidthPruning?: number;
  readonly maxDepthPruning?: number;
  readonly hparamsToSkip?: string[];
}

/** `prunebridge search` */
export function searchCommand(): Command {
  return command("search", "list the largest subnets within bounds on parameters, memory or flops (no Python, headers only)")
    .argument("<path>", "checkpoint folder, or a bare config.json")
    .option("--params <n>", "at most this many parameters: 6e9, 6B or 60%", parseCount)
    .option("--active-params <n>", "at most this many active parameters", parseCount)
    .option("--memory-mb <n>", "at most this much memory for weights and cache: MiB, 12GiB or 60%", parseMemory)
    .option("--flops <n>", "at most this many operations for a batch", parseCount)
    .option("--top-k <n>", "candidates to list (default: 10)", positiveInteger)
    .option("--seq-length <tokens>", "tokens of a sequence, for memory and flops (default: 4096)", positiveInteger)
    .option("--batch-size <n>", "sequences of a batch, for memory and flops (default: 1)", positiveInteger)
    .option("--hidden-size-divisor <n>", "step of hidden_size (default: 256)", positiveInteger)
    .option("--ffn-hidden-size-divisor <n>", "step of ffn_hidden_size (default: 512)", positiveInteger)
    .option("--num-layers-divisor <n>", "step of num_layers (default: 2)", positiveInteger)
    .option("--max-width-pruning <share>", "largest share of a width that may go (default: 0.4)", share)
    .option("--max-depth-pruning <share>", "largest share of the layers that may go (default: 0.2)", share)
    .option("--hparams-to-skip <names>", "hyperparameters that keep their size, with commas between", (names: string) => names.split(","))
    .action((path: string, flags: Flags) =>
      runCommand(flags, async () => {
        const { json: _json, params, activeParams, memoryMb, flops, ...options } = flags;
        const constraints = defined({ params, active_params: activeParams, memory_mb: memoryMb, flops });
        const found = search(await readParent(path), constraints, snakeCased(options));
        return { json: found, text: formatSearch(found) };
      }),
    );
}

function share(text: string): number {
  const value = Number(text);
  if (text.trim() !== "" && value >= 0 && value < 1) return value;
  throw new InvalidArgumentError("it must be a share from 0 to below 1.");
}

function defined<T>(record: Readonly<Record<string, T | undefined>>): Record<string, T> {
  return Object.fromEntries(Object.entries(record).filter((entry): entry is [string, T] => entry[1] !== undefined));
}

function snakeCased(options: object): Record<string, never> {
  const entries = Object.entries(options).map(([name, value]) => [
    name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
    value as never,
  ]);
  return Object.fromEntries(entries) as Record<string, never>;
}
