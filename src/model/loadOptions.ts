import { resolve } from "node:path";
import { z } from "zod";
import { PruneError } from "../errors.js";
import { formatIssues } from "../policy/issues.js";
import type { RunOptions } from "../progress.js";
import { type PythonRef, python } from "../pythonRef.js";

/** Where a network runs, and in what. */
interface Placing extends RunOptions {
  /** As torch spells it, `cuda:1` for one. Default `auto`: the first CUDA device if there is one, else the CPU. */
  readonly device?: string | undefined;
  /** Default `auto`: as the weights are stored. */
  readonly dtype?: "auto" | "float32" | "bfloat16" | "float16" | undefined;
}

/** A network that a Python function builds. */
export interface BuiltOptions extends Placing {
  /** `package.module:function`, which gives a torch.nn.Module. The shim has to allow it: see `allowPython` of {@link Bridge.spawn}. */
  readonly entrypoint: string;
  /** Its named arguments: JSON. Default: none. */
  readonly kwargs?: Readonly<Record<string, unknown>> | undefined;
  /** A safetensors file with the state dict, every key of it and none else. Default: the function gives the network with its weights. */
  readonly weights?: string | undefined;
}

/** A network that lies in a folder. */
export interface FolderOptions extends Placing {
  /** A vision checkpoint of Hugging Face, in safetensors; or what {@link NetworkModel.save} wrote. */
  readonly checkpoint: string;
}

/** How a network is loaded. */
export type LoadOptions = BuiltOptions | FolderOptions;

/** The same, checked, with every default. */
export type CheckedLoad = { readonly device: string; readonly dtype: string; readonly options: RunOptions } & (
  | {
      readonly kind: "built";
      readonly entrypoint: PythonRef;
      readonly kwargs: Record<string, unknown>;
      readonly weights: string | undefined;
    }
  | { readonly kind: "folder"; readonly dir: string }
);

const placing = {
  device: z.string().min(1).default("auto"),
  dtype: z.enum(["auto", "float32", "bfloat16", "float16"]).default("auto"),
  signal: z.instanceof(AbortSignal).optional(),
  onProgress: z.custom<NonNullable<RunOptions["onProgress"]>>((value) => typeof value === "function", "must be a function").optional(),
};
const built = z.strictObject({
  entrypoint: z.string(),
  kwargs: z.record(z.string(), z.json()).default({}),
  weights: z.string().min(1).optional(),
  ...placing,
});
const folder = z.strictObject({ checkpoint: z.string().min(1), ...placing });

/** Checks how a network is to be loaded. Throws BAD_OPTION that names the option. */
export function parseLoadOptions(given: LoadOptions): CheckedLoad {
  if ("checkpoint" in given) {
    const { checkpoint, device, dtype, ...options } = checked(folder, given);
    return { kind: "folder", dir: resolve(checkpoint), device, dtype, options };
  }
  const { entrypoint, kwargs, weights, device, dtype, ...options } = checked(built, given);
  const path = weights === undefined ? undefined : resolve(weights);
  return { kind: "built", entrypoint: python(entrypoint), kwargs, weights: path, device, dtype, options };
}

function checked<Schema extends z.ZodObject>(schema: Schema, given: LoadOptions): z.output<Schema> {
  const parsed = schema.safeParse(given);
  if (parsed.success) return parsed.data;
  throw new PruneError("BAD_OPTION", `load: ${formatIssues(parsed.error)}`, {
    hint: `a network is loaded by ${Object.keys(schema.shape).join(", ")}`,
  });
}
