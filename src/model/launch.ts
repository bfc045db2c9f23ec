import { z } from "zod";
import { PruneError } from "../errors.js";
import { type Parent, readParent, weightsOf } from "../inspect.js";
import { JobProcess } from "../shim/jobProcess.js";
import { TIMEOUTS } from "../shim/options.js";
import type { SpawnOptions } from "../shim/process.js";

const size = z.number().int().positive();

const parallelism = z.strictObject({
  /** Ranks on this machine: its GPUs. */
  nprocPerNode: size,
  /** Ranks that share the channels of each layer. Default 1. */
  tensorModelParallelSize: size.default(1),
  /** Ranks that share the layers. Default 1. */
  pipelineModelParallelSize: size.default(1),
  /** Ranks that share the tokens of a sequence. Default 1. */
  contextParallelSize: size.default(1),
  /** Ranks that share the experts. Default 1. */
  expertModelParallelSize: size.default(1),
  /** Whether tensor parallel ranks share the tokens where they do not share channels. Default false. */
  sequenceParallel: z.boolean().default(false),
});

/** How a checkpoint is spread over ranks on this machine. */
export type Parallelism = z.input<typeof parallelism>;

/** How to launch a job. */
export interface LaunchOptions extends Parallelism, Omit<SpawnOptions, "allowPython"> {
  /** A checkpoint in Megatron-Core's layout: torch_dist, NeMo 2, Megatron-Bridge, or safetensors. */
  readonly checkpoint: string;
  /** `cuda` or `cpu`. Default: `cuda` where there is one. */
  readonly device?: "cuda" | "cpu" | undefined;
  /** Default: as the checkpoint has it. */
  readonly dtype?: "float32" | "bfloat16" | "float16" | undefined;
}

/** A job that was launched, and the checkpoint that its ranks have loaded. */
export interface LaunchedJob {
  readonly job: JobProcess;
  readonly parent: Parent;
}

/**
 * Starts the ranks of a job for a checkpoint: for the iteration that its tracker names now, whatever is saved beside it until they have read it.
 *
 * @throws PruneError BAD_OPTION, or as {@link readParent} does, before any is started; as {@link JobProcess.start} does
 */
export async function launchJob(options: LaunchOptions): Promise<LaunchedJob> {
  const { checkpoint, device, dtype, roots = ["/"], python, env, onLog, timeouts, ...sizes } = options;
  const { nprocPerNode, ...spread } = checked(sizes);
  const parent = await readLoadable(checkpoint);
  const flags = Object.entries(spread).flatMap(([name, value]) => flagOf(name, value));
  for (const [name, value] of Object.entries({ device, dtype })) if (value !== undefined) flags.push(`--${name}`, value);
  for (const root of roots) flags.push("--root", root);
  flags.push("--deadline", String((timeouts?.lostRank ?? TIMEOUTS.lostRank) / 1000));
  const args = ["megatron", "--checkpoint", parent.checkpoint.dir, ...flags];
  return { job: await JobProcess.start({ ranks: nprocPerNode, args, python, env, onLog, timeouts }), parent };
}

async function readLoadable(checkpoint: string): Promise<Parent> {
  const parent = await readParent(checkpoint);
  const { layout } = weightsOf(parent);
  if (layout === "megatron") return parent;
  throw new PruneError("BAD_OPTION", `${checkpoint} is in the layout ${layout}: Megatron-Core loads its own`, {
    hint: "open it in a shim: (await Bridge.spawn()).open(...); or convert it with Megatron-Bridge first",
  });
}

function checked(sizes: object): z.output<typeof parallelism> {
  const parsed = parallelism.safeParse(sizes);
  if (!parsed.success) throw new PruneError("BAD_OPTION", `launch: ${z.prettifyError(parsed.error)}`);
  const { nprocPerNode, tensorModelParallelSize: tensor, pipelineModelParallelSize: pipeline, contextParallelSize: context } = parsed.data;
  const together = tensor * pipeline * context;
  if (nprocPerNode % together === 0) return parsed.data;
  throw new PruneError(
    "BAD_OPTION",
    `launch: nprocPerNode ${nprocPerNode} is not a multiple of the ${together} ranks that hold the model together (tensor ${tensor} x pipeline ${pipeline} x context ${context})`,
    { hint: `the nearest legal value is ${Math.ceil(nprocPerNode / together) * together}` },
  );
}

/** `tensorModelParallelSize` -> `--tensor-model-parallel-size`. */
function flagOf(name: string, value: number | boolean): string[] {
  const flag = `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
  return value === true ? [flag] : value === false ? [] : [flag, String(value)];
}
