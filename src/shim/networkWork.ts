import { PruneError } from "../errors.js";
import type { OpenNetwork, Sliced, NetworkAxis as WireAxis, ChannelGroup as WireGroup } from "../gen/prunebridge/v1/work.js";
import type { AxisPart, ChannelGroup, NetworkAxis, NetworkFacts } from "../policy/network/facts.js";
import type { RunOptions } from "../progress.js";
import { asFloat64, type Batch, type Tensor } from "../tensor.js";
import type { Asks } from "./feed.js";
import { bringing, type PythonSource } from "./runWork.js";
import type { ShimSession } from "./session.js";
import { feedOf, resultOf } from "./wire.js";

/** Where a network comes from: a Python function with or without weights, a checkpoint of Hugging Face, or the folder of a pruned network. */
export type NetworkOrigin =
  | { readonly kind: "built"; readonly entrypoint: string; readonly kwargsJson: string; readonly weightsPath: string }
  | { readonly kind: "checkpoint"; readonly dir: string }
  | { readonly kind: "pruned"; readonly dir: string };

/** A network that the shim has open. */
export interface OpenedNetwork {
  /** The id that the shim knows it by. */
  readonly modelId: string;
  /** As torch spells them. */
  readonly device: string;
  readonly dtype: string;
  /** Elements of all parameters, tied ones counted once. */
  readonly parameters: number;
}

/** Opens a network. */
export async function openNetwork(
  session: ShimSession,
  origin: NetworkOrigin,
  { device, dtype }: { device: string; dtype: string },
  options: RunOptions,
): Promise<OpenedNetwork> {
  const value: OpenNetwork = { source: toWireOrigin(origin), device, dtype };
  return resultOf(await session.run({ $case: "openNetwork", value }, options), "modelOpened");
}

function toWireOrigin(origin: NetworkOrigin): OpenNetwork["source"] {
  if (origin.kind === "checkpoint") return { $case: "checkpointDir", value: origin.dir };
  if (origin.kind === "pruned") return { $case: "prunedDir", value: origin.dir };
  const { entrypoint, kwargsJson, weightsPath } = origin;
  return { $case: "built", value: { entrypoint, kwargsJson, weightsPath } };
}

/** Traces a network with a dummy input. */
export async function traceNetwork(session: ShimSession, modelId: string, dummy: Batch, options: RunOptions): Promise<NetworkFacts> {
  const feed = feedOf([dummy]);
  const work = { $case: "traceNetwork", value: { modelId, feedId: feed.id } } as const;
  const { done, tensors } = await session.runForTensors(work, options, feed);
  const { groups, tensors: stored, operations, layers } = resultOf(done, "networkTraced");
  return {
    groups: groups.map((group, index) => fromWireGroup(group, tensors.get(`importance.${index}`))),
    parameters: stored.map(({ info, axes, isBuffer, blocks }) => ({
      name: info?.name ?? "",
      axes: axes.map(fromWireAxis),
      isBuffer,
      blocks,
    })),
    operations: operations.map(({ module, factor, axes }) => ({ module, factor, axes: axes.map(fromWireAxis) })),
    layers: layers.map(({ module, attributes }) => ({
      module,
      attributes: Object.fromEntries(Object.entries(attributes).map(([name, axis]) => [name, fromWireAxis(axis)])),
    })),
  };
}

function fromWireGroup({ outputs, channels, fixed, sections }: WireGroup, importance: Tensor | undefined): ChannelGroup {
  if (!importance) throw new PruneError("INTERNAL", "the shim traced a group of channels without their importances");
  return {
    outputs: outputs.map(({ attribute, ...output }) => {
      if (attribute === "out_channels" || attribute === "out_features") return { ...output, attribute };
      throw new PruneError("INTERNAL", `the shim counts outputs of ${output.module} as ${attribute}`);
    }),
    channels,
    fixed,
    sections,
    importance: asFloat64(importance),
  };
}

function fromWireAxis({ parts }: WireAxis): NetworkAxis {
  return parts.map(
    ({ group, begin, end, repeat, size }): AxisPart => (group === undefined ? { fixed: size } : { group, begin, end, repeat }),
  );
}

/** Batches that normalisation layers were calibrated over, and how many layers have running statistics. */
export interface CalibratedNorms {
  readonly batches: number;
  readonly layers: number;
}

/** Makes running statistics of normalisation layers those of batches. */
export async function calibrateNorms(
  session: ShimSession,
  modelId: string,
  source: Asks | PythonSource,
  options: RunOptions,
): Promise<CalibratedNorms> {
  const { feed, ...brought } = bringing(source);
  const done = await session.run({ $case: "calibrateNorms", value: { modelId, ...brought } }, options, feed);
  return resultOf(done, "normsCalibrated");
}

/** Writes the weights of a network into a job's folder. */
export async function saveNetwork(
  session: ShimSession,
  modelId: string,
  { jobDir, flush, sha256 }: { jobDir: string; flush: boolean; sha256: boolean },
  options: RunOptions,
): Promise<Sliced> {
  return resultOf(await session.run({ $case: "saveNetwork", value: { modelId, jobDir, skipFlush: !flush, sha256 } }, options), "sliced");
}

/** What a network that is built of a config has otherwise than an open one; empty where it is the same. */
export async function checkConfig(session: ShimSession, modelId: string, configJson: string, options: RunOptions): Promise<string> {
  const done = await session.run({ $case: "checkConfig", value: { modelId, configJson } }, options);
  return resultOf(done, "configChecked").difference;
}
