import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { FeedRequest, FeedResponse, ReadResultResponse } from "../gen/prunebridge/v1/operation.js";
import { TensorChunk } from "../gen/prunebridge/v1/tensor.js";
import type { Parts } from "./bulkCall.js";

// Messages that carry a chunk, written and read without a copy of its data, where generated code makes four and one. It still
// writes and reads all the rest of a message: the data is the last field of a chunk, and the chunk the last of a message, wherever a
// serialiser goes by field numbers. What is laid out otherwise is left to it whole.

const NOTHING = Buffer.alloc(0);
/** Of the contract's fields. */
const DATA = 3;
const CHUNK_OF_REQUEST = 2;
const CHUNK_OF_RESPONSE = 1;

/** Serialises a request of a feed, in parts: its chunk's data is not copied. */
export function writeRequest(request: FeedRequest): Parts {
  if (request.part?.$case !== "chunk") return [FeedRequest.encode(request).finish()];
  const { data, ...described } = request.part.value;
  const chunk = TensorChunk.encode({ ...described, data: NOTHING }).finish();
  const ending = new BinaryWriter().tag(DATA, WireType.LengthDelimited).uint32(data.length).finish();
  const head = FeedRequest.encode({ feedId: request.feedId, part: undefined })
    .tag(CHUNK_OF_REQUEST, WireType.LengthDelimited)
    .uint32(chunk.length + ending.length + data.length)
    .raw(chunk)
    .raw(ending)
    .finish();
  return [head, data];
}

/** Parses a response of a feed; its chunk's data is a view of the message. */
export function readFeedResponse(message: Buffer): FeedResponse {
  const parted = partData(message);
  if (!parted) return FeedResponse.decode(message);
  const response = FeedResponse.decode(parted.head);
  if (response.part?.$case === "chunk") response.part.value.data = parted.data;
  return response;
}

/** Parses a part of a result; its chunk's data is a view of the message. */
export function readResultResponse(message: Buffer): ReadResultResponse {
  const parted = partData(message);
  if (!parted) return ReadResultResponse.decode(message);
  const response = ReadResultResponse.decode(parted.head);
  if (response.chunk) response.chunk.data = parted.data;
  return response;
}

/** A response without the data of its chunk, and that; undefined where it does not end with it. */
function partData(message: Buffer): { head: Uint8Array; data: Buffer } | undefined {
  const chunk = lastField(message, CHUNK_OF_RESPONSE);
  const data = chunk && lastField(chunk.content, DATA);
  if (!data) return undefined;
  const head = new BinaryWriter()
    .raw(message.subarray(0, chunk.start))
    .tag(CHUNK_OF_RESPONSE, WireType.LengthDelimited)
    .bytes(chunk.content.subarray(0, data.start))
    .finish();
  return { head, data: data.content };
}

/** The last field of a message, where it has that number and is length-delimited. */
function lastField(message: Buffer, number: number): { start: number; content: Buffer } | undefined {
  const reader = new BinaryReader(message);
  let [start, begin] = [0, 0];
  try {
    while (reader.pos < reader.len) {
      start = reader.pos;
      const [field, type] = reader.tag();
      begin = field === number && type === WireType.LengthDelimited ? reader.pos : 0;
      reader.skip(type, field);
    }
  } catch {
    // No message: the generated code says so.
    return undefined;
  }
  if (begin === 0) return undefined;
  reader.pos = begin;
  return { start, content: message.subarray(message.length - reader.uint32()) };
}
