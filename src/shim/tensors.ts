import { PruneError } from "../errors.js";
import { type FeedRequest, Returns as WireReturns } from "../gen/prunebridge/v1/operation.js";
import { type TensorChunk, type TensorInfo, Dtype as WireDtype } from "../gen/prunebridge/v1/tensor.js";
import { type Batch, byteLength, type Dtype, type Returns, type Tensor } from "../tensor.js";
import { CHUNK_BYTES } from "./options.js";

const TO_WIRE: Readonly<Record<Dtype, WireDtype>> = {
  BOOL: WireDtype.DTYPE_BOOL,
  U8: WireDtype.DTYPE_U8,
  I8: WireDtype.DTYPE_I8,
  I16: WireDtype.DTYPE_I16,
  U16: WireDtype.DTYPE_U16,
  F16: WireDtype.DTYPE_F16,
  BF16: WireDtype.DTYPE_BF16,
  I32: WireDtype.DTYPE_I32,
  U32: WireDtype.DTYPE_U32,
  F32: WireDtype.DTYPE_F32,
  I64: WireDtype.DTYPE_I64,
  U64: WireDtype.DTYPE_U64,
  F64: WireDtype.DTYPE_F64,
  F8_E4M3: WireDtype.DTYPE_F8_E4M3,
  F8_E5M2: WireDtype.DTYPE_F8_E5M2,
  F8_E4M3FNUZ: WireDtype.DTYPE_F8_E4M3FNUZ,
  F8_E5M2FNUZ: WireDtype.DTYPE_F8_E5M2FNUZ,
  F8_E8M0: WireDtype.DTYPE_F8_E8M0,
  C64: WireDtype.DTYPE_C64,
  F4: WireDtype.DTYPE_F4,
  F6_E2M3: WireDtype.DTYPE_F6_E2M3,
  F6_E3M2: WireDtype.DTYPE_F6_E3M2,
};
const FROM_WIRE = new Map(Object.entries(TO_WIRE).map(([name, wire]) => [wire, name as Dtype]));

/** What a batch may ask for: what a language model's batch gives back, or every tensor that forward returns. */
export type Asked = Returns | "output";

const RETURNS_TO_WIRE: Readonly<Record<Asked, WireReturns>> = {
  loss: WireReturns.RETURNS_LOSS,
  last_logits: WireReturns.RETURNS_LAST_LOGITS,
  logits: WireReturns.RETURNS_LOGITS,
  output: WireReturns.RETURNS_OUTPUT,
};

/** A tensor's description for the wire. */
export function toTensorInfo(name: string, { dtype, shape }: Pick<Tensor, "dtype" | "shape">): TensorInfo {
  return { name, dtype: TO_WIRE[dtype], shape: [...shape] };
}

/** The messages of one batch: its tensors in chunks, then the batch's end, which says what it gives back. */
export function* batchMessages(batch: Batch, returns?: Asked): Generator<FeedRequest> {
  for (const [name, tensor] of Object.entries(batch)) {
    let offset = 0;
    do {
      const chunk: TensorChunk = { info: undefined, offset, data: viewOf(tensor.data, offset) };
      if (offset === 0) chunk.info = toTensorInfo(name, tensor);
      yield { feedId: "", part: { $case: "chunk", value: chunk } };
      offset += CHUNK_BYTES;
    } while (offset < tensor.data.length);
  }
  yield {
    feedId: "",
    part: { $case: "batchEnd", value: { returns: returns ? RETURNS_TO_WIRE[returns] : WireReturns.RETURNS_UNSPECIFIED } },
  };
}

function viewOf(data: Uint8Array, offset: number): Buffer {
  return Buffer.from(data.buffer, data.byteOffset + offset, Math.min(CHUNK_BYTES, data.byteLength - offset));
}

/** Puts chunks together again. Throws INTERNAL where they do not make up whole tensors. */
export class TensorAssembler {
  readonly tensors = new Map<string, Tensor>();
  readonly #into: Uint8Array | undefined;
  #current: { tensor: Tensor; filled: number } | undefined;

  /** @param into - memory for the one tensor that comes; default: each has its own */
  constructor(into?: Uint8Array) {
    this.#into = into;
  }

  /** Takes the next chunk. */
  add(chunk: TensorChunk | undefined): void {
    if (chunk?.info) this.#begin(chunk.info);
    const current = this.#current;
    if (!chunk || !current || chunk.offset !== current.filled || chunk.offset + chunk.data.length > current.tensor.data.length) {
      throw new PruneError("INTERNAL", `the shim sent a tensor chunk out of place, at offset ${chunk?.offset}`);
    }
    current.tensor.data.set(chunk.data, chunk.offset);
    current.filled += chunk.data.length;
  }

  /** All tensors, once the stream has ended. */
  finish(): ReadonlyMap<string, Tensor> {
    this.#end();
    return this.tensors;
  }

  #begin({ name, dtype, shape }: TensorInfo): void {
    this.#end();
    const known = FROM_WIRE.get(dtype);
    if (known === undefined) throw new PruneError("INTERNAL", `the shim sent ${name} with the unknown dtype ${dtype}`);
    const tensor: Tensor = { dtype: known, shape, data: this.#memoryFor(name, { dtype: known, shape }) };
    this.tensors.set(name, tensor);
    this.#current = { tensor, filled: 0 };
  }

  #memoryFor(name: string, described: Pick<Tensor, "dtype" | "shape">): Uint8Array {
    const bytes = byteLength(described);
    // Not zeroed: it is handed out only once every byte of it came.
    if (!this.#into) return new Uint8Array(Buffer.allocUnsafeSlow(bytes).buffer);
    if (bytes <= this.#into.length && this.tensors.size === 0) return this.#into.subarray(0, bytes);
    const shape = described.shape.join(", ");
    throw new PruneError(
      "BAD_OPTION",
      `into has ${this.#into.length} bytes, and ${name} is ${described.dtype} [${shape}], ${bytes} bytes`,
      {
        hint: "give as many, or leave it out for a tensor of its own",
      },
    );
  }

  #end(): void {
    const current = this.#current;
    if (current && current.filled < current.tensor.data.length) {
      throw new PruneError("INTERNAL", `the shim sent ${current.filled} of a tensor's ${current.tensor.data.length} bytes`);
    }
  }
}
