import {
  type Bridge,
  type Model,
  type Network,
  type Parent,
  PruneError,
  readRunnableParent,
  readWeightedParent,
  type SpawnOptions,
} from "../index.js";
import type { DeviceFlags, ShimFlags } from "./options.js";
import { withBridge } from "./run.js";

/** Flags that choose a model, beside the folder of a checkpoint. */
export interface ModelFlags extends DeviceFlags, ShimFlags {
  readonly tokenizer?: string;
}

/** What a command does with a model. */
export interface ModelWork<Inputs, T> {
  /** Checks all that the flags name; called before anything is started where the checkpoint is at hand. */
  readonly prepare: (network: Network | Parent) => Promise<Inputs>;
  readonly run: (model: Model, inputs: Inputs) => Promise<T>;
  readonly optionsOf?: (inputs: Inputs) => SpawnOptions;
}

/** Runs work on the model of a checkpoint folder or, attached to a job, on the job's: then the folder says which checkpoint that is. */
export async function withModel<Inputs, T>(dir: string | undefined, flags: ModelFlags, work: ModelWork<Inputs, T>): Promise<T> {
  if (dir === undefined && flags.attach === undefined) {
    throw new PruneError("BAD_OPTION", "there is no model to work on", { hint: "name a checkpoint folder, or give the --attach of a job" });
  }
  if (flags.attach === undefined) refuseTokenizer(flags);
  const read = flags.attach === undefined ? readRunnableParent : readWeightedParent;
  const parent = dir === undefined ? undefined : await read(dir);
  const early = parent && { inputs: await work.prepare(parent) };
  return withBridge(
    flags,
    async (bridge) => {
      const model = await modelOf(bridge, parent, flags);
      return work.run(model, early ? early.inputs : await work.prepare(model.parent));
    },
    early && work.optionsOf?.(early.inputs),
  );
}

async function modelOf(bridge: Bridge, parent: Parent | undefined, flags: ModelFlags): Promise<Model> {
  const { device, dtype, tokenizer } = flags;
  if (!parent || bridge.shim.attached.length > 0) {
    const model = await bridge.attachedModel({ checkpoint: parent, tokenizer });
    refuseDeviceFlags(flags);
    return model;
  }
  refuseTokenizer(flags);
  return bridge.open(parent, { device, dtype });
}

function refuseTokenizer({ tokenizer }: ModelFlags): void {
  if (tokenizer === undefined) return;
  throw new PruneError("BAD_OPTION", "--tokenizer is for the model of a job: a checkpoint has its own", {
    hint: "leave --tokenizer out, or give the --attach of a job",
  });
}

function refuseDeviceFlags(flags: DeviceFlags): void {
  for (const name of ["device", "dtype"] as const) {
    if (flags[name] === "auto") continue;
    throw new PruneError(
      "BAD_OPTION",
      `--${name} ${flags[name]} cannot be had: the model of a job runs where the job does, and as it does`,
      {
        hint: `leave --${name} out`,
      },
    );
  }
}
