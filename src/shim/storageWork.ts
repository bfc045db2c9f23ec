import type { OutputShard, Sliced, TorchDistSave } from "../gen/prunebridge/v1/work.js";
import type { RunOptions } from "../progress.js";
import { asBigInt64, type Batch } from "../tensor.js";
import type { ShimSession } from "./session.js";
import { feedOf, type IndexSets, indexSetFeed, resultOf, type StoredSlice, toWireSlice } from "./wire.js";

/** Shards to write, the folder to read from, and the job's own to write to. */
export interface ShardWork {
  readonly sourceDir: string;
  readonly jobDir: string;
  readonly indexSets: IndexSets;
  readonly shards: readonly { readonly file: string; readonly tensors: readonly StoredSlice[] }[];
  readonly flush: boolean;
  readonly sha256: boolean;
  readonly torchDist: SaveBesides | undefined;
}

/** What a torch_dist save has besides its shards. */
export interface SaveBesides {
  /** The folder within the child that it lies in. */
  readonly folder: string;
  /** Keys of objects that it has empty. */
  readonly emptyObjects: readonly string[];
  /** New values of the training script's arguments in common.pt, and its entries to leave out; undefined where it is carried unread. */
  readonly common: { readonly arguments: Readonly<Record<string, unknown>>; readonly leftOut: readonly string[] } | undefined;
}

/** Cuts shards on storage; gives their sizes and checksums, and bytes of tensors that were found written. */
export async function cutShards(
  session: ShimSession,
  { sourceDir, jobDir, indexSets, shards, flush, sha256, torchDist }: ShardWork,
  options: RunOptions,
): Promise<Sliced> {
  const feed = indexSetFeed(indexSets);
  const done = await session.run(
    {
      $case: "slice",
      value: {
        sourceDir,
        jobDir,
        feedId: feed.id,
        shards: toWireShards(shards),
        skipFlush: !flush,
        sha256,
        torchDist: torchDist && toWireSave(torchDist),
      },
    },
    options,
    feed,
  );
  return resultOf(done, "sliced");
}

/** Shards of safetensors for the wire. */
export function toWireShards(shards: ShardWork["shards"]): OutputShard[] {
  return shards.map(({ file, tensors }) => ({ file, metadata: { format: "pt" }, tensors: tensors.map(toWireSlice) }));
}

function toWireSave({ folder, emptyObjects, common }: SaveBesides): TorchDistSave {
  return {
    folder,
    emptyObjects: [...emptyObjects],
    common: common && { argumentsJson: JSON.stringify(common.arguments), leftOut: [...common.leftOut] },
  };
}

/** The token ids of all texts in a row, by the tokenizer of a checkpoint folder; each text is closed by the end-of-text token. */
export async function tokenize(session: ShimSession, path: string, texts: readonly string[], options: RunOptions): Promise<BigInt64Array> {
  const feed = feedOf(texts.map(textBatch));
  const { tensors } = await session.runForTensors({ $case: "tokenize", value: { path, feedId: feed.id } }, options, feed);
  const ids = tensors.get("input_ids");
  return ids ? asBigInt64(ids) : new BigInt64Array();
}

function textBatch(text: string): Batch {
  const data = new TextEncoder().encode(text);
  return { text: { dtype: "U8", shape: [data.length], data } };
}
