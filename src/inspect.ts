import { fingerprint } from "./checkpoint/fingerprint.js";
import { type Checkpoint, type CheckpointTensor, readCheckpoint, readWeightedCheckpoint, requireRunnable } from "./checkpoint/folder.js";
import type { PlanFile } from "./checkpoint/planFile.js";
import { PruneError } from "./errors.js";
import { layeredArchitecture } from "./layeredChild.js";
import { type Architecture, readArchitecture } from "./policy/architecture.js";
import { countActiveParams, countParams } from "./policy/cost.js";
import type { Hyperparameters, LayerSizes } from "./policy/hyperparameters.js";
import { type MatchedTensors, matchTensors } from "./policy/matchTensors.js";

/** A network as its config states it, read through its family's table. */
export interface Network {
  readonly checkpoint: Pick<Checkpoint, "config" | "configPath" | "configText">;
  readonly architecture: Architecture;
  /** Every tensor with its row, and the layout that they are stored in; none for a bare config.json, and for the model of a job. */
  readonly matched: MatchedTensors<CheckpointTensor> | undefined;
  /** Tells these weights from others; undefined for a bare config.json. */
  readonly fingerprint: string | undefined;
}

/** A checkpoint that was read through its family's table, every tensor accounted for. */
export interface Parent extends Network {
  readonly checkpoint: Checkpoint;
}

/** What a checkpoint is. */
export interface Inspection {
  readonly family: string;
  /** How the weights are stored; undefined for a bare config.json. */
  readonly layout: string | undefined;
  /** Under Megatron's names; of layers that differ, those of the widest. */
  readonly hyperparameters: Hyperparameters;
  /** The sizes of each layer, where they differ and an architecture.json states them in the config's place. */
  readonly layers?: readonly LayerSizes[];
  readonly params: number;
  readonly activeParams: number;
  readonly tiedEmbeddings: boolean;
  /** How the weights are quantised, in words; undefined where they are not. */
  readonly quantization: string | undefined;
  /** The weight files; undefined for a bare config.json. */
  readonly weights:
    | {
        readonly files: number;
        readonly tensors: number;
        readonly bytes: number;
        readonly dtypes: readonly string[];
        /** Tensors of the optimizer, which no child has. */
        readonly leftOut: number;
      }
    | undefined;
  readonly fingerprint: string | undefined;
}

/**
 * Tells what a checkpoint folder or a bare config.json is, from its config and headers: no Python, and no weights but the few bytes that the
 * fingerprint looks at.
 *
 * @throws PruneError with a code for each way in which a checkpoint can be wrong
 */
export async function inspect(path: string): Promise<Inspection> {
  return describeParent(await readParent(path));
}

/** Reads a checkpoint or a bare config.json and checks every tensor that is there. */
export async function readParent(path: string): Promise<Parent> {
  return understand(await readCheckpoint(path));
}

/** Reads a checkpoint that has to have weights. */
export async function readWeightedParent(path: string): Promise<Parent> {
  return understand(await readWeightedCheckpoint(path));
}

/** Reads a checkpoint that a shim of one process can open. Throws NOT_A_CHECKPOINT on one in Megatron's torch_dist format, too. */
export async function readRunnableParent(path: string): Promise<Parent> {
  const checkpoint = await readCheckpoint(path);
  requireRunnable(checkpoint);
  return understand(checkpoint);
}

/** The tensors of a parent with their rows. Throws NOT_A_CHECKPOINT on a bare config.json. */
export function weightsOf({ checkpoint, matched }: Parent): MatchedTensors<CheckpointTensor> {
  if (matched) return matched;
  throw new PruneError("NOT_A_CHECKPOINT", `${checkpoint.configPath} stands alone, without weights`, { hint: "name a checkpoint folder" });
}

/** The names of stored tensors that the family's table has no use for. */
export function leftOutOf({ checkpoint, matched }: Parent): string[] {
  const used = new Set(matched?.tensors.map(({ stored }) => stored.name));
  return checkpoint.tensors.map(({ name }) => name).filter((name) => !used.has(name));
}

/**
 * The tensors of a parent as a child in one format or the other names them: the keys of a torch_dist folder are no names of modules, and give
 * way to those that the family's table has. So do other spellings where no config tells a loader of them.
 */
export function weightsFor(parent: Parent, asSave: boolean, { layers }: Pick<PlanFile, "layers"> = {}): MatchedTensors<CheckpointTensor> {
  const { layout, tensors } = weightsOf(parent);
  if (asSave || (!parent.checkpoint.torchDist && !layers)) return { layout, tensors };
  return { layout, tensors: tensors.map((tensor) => ({ ...tensor, spelling: tensor.row.name })) };
}

/** Sums a parent up. */
export function describeParent({ checkpoint, architecture, ...parent }: Parent): Inspection {
  const { tensors, torchDist } = checkpoint;
  const files = torchDist?.files.length ?? checkpoint.headers.length;
  return {
    family: architecture.table.family,
    layout: parent.matched?.layout,
    hyperparameters: architecture.hyperparameters,
    ...(architecture.layerSizes && { layers: architecture.layerSizes }),
    params: countParams(architecture),
    activeParams: countActiveParams(architecture),
    tiedEmbeddings: architecture.flags.tied,
    quantization: architecture.quantization?.name,
    weights:
      files === 0
        ? undefined
        : {
            files,
            tensors: tensors.length,
            bytes: tensors.reduce((sum, { bytes }) => sum + bytes, 0),
            dtypes: [...new Set(tensors.map(({ dtype }) => dtype))].sort(),
            leftOut: torchDist?.optimizerTensors ?? 0,
          },
    fingerprint: parent.fingerprint,
  };
}

async function understand(checkpoint: Checkpoint): Promise<Parent> {
  const { config, configPath, tensors, layered } = checkpoint;
  const whole = readArchitecture(config, configPath);
  const architecture = layered ? layeredArchitecture(whole, layered, tensors, configPath) : whole;
  const weighted = checkpoint.headers.length > 0 || checkpoint.torchDist !== undefined;
  return {
    checkpoint,
    architecture,
    matched: weighted ? matchTensors(architecture, tensors) : undefined,
    fingerprint: weighted ? await fingerprint(checkpoint) : undefined,
  };
}
