import { randomUUID } from "node:crypto";
import { PruneError } from "../errors.js";
import type { Succeeded } from "../gen/prunebridge/v1/operation.js";
import { HookSide, Reduction, type HookPoint as WireHook, type TensorSlice as WireSlice } from "../gen/prunebridge/v1/work.js";
import type { ReductionName } from "../policy/families/table.js";
import type { HookPoint } from "../policy/scores.js";
import type { TensorSlice } from "../policy/slices.js";
import { type Batches, bytesOf, countOf, type Dtype } from "../tensor.js";
import type { Ask, Asks, FeedSource } from "./feed.js";
import { toTensorInfo } from "./tensors.js";

type Result = NonNullable<Succeeded["result"]>;
type ValueOf<Case extends Result["$case"]> = Extract<Result, { $case: Case }>["value"];

/** A tensor in a file of the parent, or part of one in a torch_dist folder. */
interface Stored {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly file: string;
  readonly view?: { readonly key: string; readonly index: readonly number[] };
}

/** A slice of a tensor that lies in a file of the parent, and where in a torch_dist save it goes. */
export type StoredSlice = TensorSlice<Stored> & { readonly place?: SavePlace };

/** Where a tensor lies in a torch_dist save: the stored tensor's key, its position along the outer axes of that, and their sizes. */
export interface SavePlace {
  readonly key: string;
  readonly index: readonly number[];
  readonly outerShape: readonly number[];
}

/** Kept positions by index set id. */
export type IndexSets = ReadonlyMap<string, readonly number[]>;

/** The result of an operation, which must be of the kind that was asked for. */
export function resultOf<Case extends Result["$case"]>(done: Succeeded, kind: Case): ValueOf<Case> {
  if (done.result?.$case === kind) return done.result.value as ValueOf<Case>; // TypeScript does not narrow by a generic
  throw new PruneError("INTERNAL", `the shim answered with ${done.result?.$case ?? "nothing"} where ${kind} was due`);
}

/** A feed of batches under a new id. */
export function feedOf(batches: Batches): FeedSource {
  return { id: randomUUID(), asks: asksOfBatches(batches) };
}

/** Batches that ask for nothing. */
export function asksOfBatches(batches: Batches): Asks {
  return {
    get size() {
      return countOf(batches);
    },
    async *[Symbol.asyncIterator](): AsyncGenerator<Ask, void, void> {
      for await (const batch of batches) yield { batch };
    },
  };
}

/** The index sets of a cut as a feed of one batch: each an I64 tensor under its id. */
export function indexSetFeed(indexSets: IndexSets): FeedSource {
  const tensors = [...indexSets].map(([id, positions]) => {
    const data = bytesOf(BigInt64Array.from(positions, BigInt));
    return [id, { dtype: "I64" as const, shape: [positions.length], data }] as const;
  });
  return feedOf([Object.fromEntries(tensors)]);
}

const TO_WIRE: Readonly<Record<ReductionName, Reduction>> = {
  mean_abs_square: Reduction.REDUCTION_MEAN_ABS_SQUARE,
  cosine_distance: Reduction.REDUCTION_COSINE_DISTANCE,
  routed_mean_abs_square: Reduction.REDUCTION_ROUTED_MEAN_ABS_SQUARE,
  routed_output_norm: Reduction.REDUCTION_ROUTED_OUTPUT_NORM,
  routed_tokens: Reduction.REDUCTION_ROUTED_TOKENS,
};
const SIDES = { input: HookSide.HOOK_SIDE_INPUT, output: HookSide.HOOK_SIDE_OUTPUT } as const;

/** A hook point for the wire. */
export function toWireHook({ key, module, side, reduction }: HookPoint): WireHook {
  return {
    key,
    module,
    side: reduction === "mean_abs_square" ? SIDES[side] : HookSide.HOOK_SIDE_UNSPECIFIED,
    reduction: TO_WIRE[reduction],
  };
}

/** A tensor's slice for the wire. */
export function toWireSlice({ name, parts, place }: StoredSlice): WireSlice {
  return {
    name: place?.key ?? name,
    parts: parts.map(({ source, axes, blocks, shift = 0 }) => ({
      sourceFile: source.file,
      source: toTensorInfo(source.view?.key ?? source.name, source),
      axes: [...axes],
      blocks: blocks.map((inner) => ({ axes: [...inner] })),
      index: [...(source.view?.index ?? [])],
      shift,
    })),
    index: [...(place?.index ?? [])],
    outerShape: [...(place?.outerShape ?? [])],
  };
}
