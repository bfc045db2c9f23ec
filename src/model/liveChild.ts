import { type Checkpoint, type CheckpointTensor, CONFIG_FILE } from "../checkpoint/folder.js";
import { patchConfigText } from "../checkpoint/json.js";
import { type ChildFiles, filesBesideSafetensors } from "../checkpoint/megatron/childFiles.js";
import type { PlanFile } from "../checkpoint/planFile.js";
import type { SizedSlice } from "../childLayout.js";
import { PruneError } from "../errors.js";
import type { Network } from "../inspect.js";
import type { Architecture } from "../policy/architecture.js";
import { headsAhead } from "../policy/childConfig.js";
import type { LayoutName } from "../policy/families/table.js";
import type { MatchedTensors } from "../policy/matchTensors.js";
import { restatePlan } from "../policy/plan.js";
import { slicesInto } from "../policy/rearrange.js";
import { layOutShards, type ShardLayout } from "../policy/shards.js";
import { expectedTensors } from "../policy/tensors.js";
import { byteLength, type Dtype } from "../tensor.js";
import { type JobModel, readLike } from "./jobNetwork.js";
import type { SaveOptions } from "./model.js";

/** A child of a job's model: by which plan, in which shards, and with which files beside them. */
export interface LiveChild {
  readonly plan: PlanFile;
  readonly layout: LayoutName;
  readonly indexSets: ReadonlyMap<string, readonly number[]>;
  readonly shards: readonly ShardLayout<SizedSlice>[];
  readonly files: ChildFiles;
}

/** Bytes of a shard at most, as Hugging Face's own writer has them. */
const SHARD_BYTES = 5e9;

const DTYPES: Readonly<Partial<Record<string, Dtype>>> = { float32: "F32", bfloat16: "BF16", float16: "F16", float64: "F64" };

type LiveOptions = Pick<SaveOptions, "like" | "layout">;

/** What any child of a job's model is made of. */
interface LiveSource extends Pick<Network, "architecture"> {
  readonly layout: LayoutName;
  /** Whose config and files the child gets. */
  readonly checkpoint: Network["checkpoint"] | Checkpoint;
  readonly matched: MatchedTensors<CheckpointTensor>;
}

/**
 * Lays a child of a job's model out.
 *
 * @throws PruneError BAD_OPTION where the layout cannot be made, or `like` is another network; UNKNOWN_TENSOR where the job's model has weights
 *   that its config does not make; as {@link readParent} does
 */
export async function layOutLiveChild(job: JobModel, network: Network, plan: PlanFile, options: LiveOptions): Promise<LiveChild> {
  const { layout, architecture, checkpoint, matched } = await readSource(job, network, options);
  const restated = options.like === undefined ? plan : { ...plan, ...restatePlan(plan, architecture, checkpoint.config) };
  const { indexSets, tensors } = slicesInto(layout, architecture, plan.kept, matched);
  const sized = tensors.map((slice) => ({
    ...slice,
    bytes: byteLength({ dtype: slice.parts[0]?.source.dtype ?? "U8", shape: slice.shape }),
  }));
  return { plan: restated, layout, indexSets, shards: layOutShards(sized, SHARD_BYTES), files: await filesOf(checkpoint, restated) };
}

/** Refuses what {@link layOutLiveChild} would refuse for any plan. */
export async function checkLiveChild(job: JobModel, network: Network, options: LiveOptions): Promise<void> {
  const { layout, architecture, matched } = await readSource(job, network, options);
  slicesInto(layout, architecture, {}, matched);
}

async function readSource(
  job: JobModel,
  network: Network,
  { like, layout = like === undefined ? "megatron" : "huggingface" }: LiveOptions,
): Promise<LiveSource> {
  if (like === undefined && layout !== "megatron") {
    throw new PruneError("BAD_OPTION", `the config that a job tells is Megatron's: a child in the layout ${layout} needs another`, {
      hint: 'name a folder that has it, with the tokenizer: save(target, { like: "/path/to/checkpoint" })',
    });
  }
  const { architecture, checkpoint } = like === undefined ? network : await readLike(like, network);
  const matched = tensorsOf(job, network, architecture);
  if (headsAhead(network.checkpoint.config, network.architecture.table) === undefined) checkAllKnown(job, matched, like);
  return { layout, architecture, checkpoint, matched };
}

/** What the job's model has of an architecture, with the padding of its vocabulary. Parameters are all of one type. */
function tensorsOf(job: JobModel, { checkpoint }: Network, architecture: Architecture): MatchedTensors<CheckpointTensor> {
  const { vocab = 0 } = architecture.sizes;
  const padded = checkpoint.config["padded_vocab_size"];
  const vocab_padding = typeof padded === "number" ? Math.max(0, padded - vocab) : 0;
  const expected = expectedTensors({ ...architecture, sizes: { ...architecture.sizes, vocab_padding } }, "megatron");
  return {
    layout: "megatron",
    tensors: expected.map(({ stored: { name, shape }, ...matched }) => {
      // Megatron-Core keeps what balances experts in float32.
      const dtype = matched.row.buffer ? "F32" : dtypeOf(job);
      return { ...matched, stored: { name, shape, dtype, bytes: byteLength({ dtype, shape }), file: "" } };
    }),
  };
}

function dtypeOf({ dtype }: JobModel): Dtype {
  const found = DTYPES[dtype];
  if (found) return found;
  throw new PruneError("BAD_OPTION", `the job's model is in ${dtype}, which cannot be saved`, {
    hint: `models in ${Object.keys(DTYPES).join(", ")} can`,
  });
}

/** Refuses a model with weights that are in no row of the table: the child would lack them in silence. */
function checkAllKnown({ parameters }: JobModel, { tensors }: MatchedTensors<CheckpointTensor>, like: string | undefined): void {
  const elements = ({ shape }: CheckpointTensor): number => shape.reduce((product, size) => product * size, 1);
  const known = tensors.reduce((sum, { row, stored }) => sum + (row.buffer ? 0 : elements(stored)), 0);
  if (known === parameters) return;
  const count = `the job's model has ${parameters.toLocaleString("en-US")} parameters, and its config`;
  const other = `makes ${known.toLocaleString("en-US")}`;
  if (like === undefined) {
    throw new PruneError("UNKNOWN_TENSOR", `${count} ${other}: it has weights that would be lost in the child`, {
      hint: "adapters and additions must be merged or removed first",
    });
  }
  throw new PruneError("BAD_OPTION", `${count}, by ${like}, ${other}`, { hint: "name a checkpoint of the same network" });
}

async function filesOf(checkpoint: Network["checkpoint"] | Checkpoint, plan: PlanFile): Promise<ChildFiles> {
  if ("dir" in checkpoint) return filesBesideSafetensors(checkpoint, plan);
  return { carried: [], written: new Map([[CONFIG_FILE, patchConfigText(checkpoint.configText, plan.config)]]) };
}
