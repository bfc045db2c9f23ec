import { status } from "@grpc/grpc-js";
import { callError } from "./callError.js";
import { MAX_MESSAGE_BYTES } from "./options.js";

/** Before each message: whether it is compressed, in one byte, and its length in four. */
export const PREFIX_BYTES = 5;

/** Puts gRPC's messages together from whatever pieces they come in, each in the memory of the one before. */
export class MessageReader {
  readonly #onMessage: (message: Buffer) => void;
  readonly #prefix = Buffer.alloc(PREFIX_BYTES);
  #memory = Buffer.alloc(0);
  /** Of the message that is being read, once its prefix is. */
  #size: number | undefined;
  #filled = 0;

  /** @param onMessage - may use a message until it returns */
  constructor(onMessage: (message: Buffer) => void) {
    this.#onMessage = onMessage;
  }

  /** Whether a message is read in part. */
  get isWithinMessage(): boolean {
    return this.#filled > 0 || this.#size !== undefined;
  }

  /** Takes the next piece. Throws what a call ends with that sends what it may not, and what `onMessage` throws. */
  add(piece: Buffer): void {
    for (let rest = piece; rest.length > 0; )
      rest = this.#size === undefined ? this.#readPrefix(rest) : this.#readMessage(rest, this.#size);
  }

  #readPrefix(piece: Buffer): Buffer {
    const rest = this.#fill(this.#prefix, PREFIX_BYTES, piece);
    if (this.#filled < PREFIX_BYTES) return rest;
    const size = this.#prefix.readUInt32BE(1);
    if (this.#prefix[0] !== 0) throw callError(status.INTERNAL, "a compressed message, which was not asked for");
    if (size > MAX_MESSAGE_BYTES)
      throw callError(status.RESOURCE_EXHAUSTED, `a message of ${size} bytes; ${MAX_MESSAGE_BYTES} are the most`);
    this.#size = size;
    this.#filled = 0;
    return size === 0 ? this.#readMessage(rest, size) : rest;
  }

  #readMessage(piece: Buffer, size: number): Buffer {
    if (this.#filled === 0 && piece.length >= size) return this.#finish(piece.subarray(0, size), piece.subarray(size));
    if (this.#memory.length < size) this.#memory = Buffer.allocUnsafeSlow(size);
    const rest = this.#fill(this.#memory, size, piece);
    return this.#filled < size ? rest : this.#finish(this.#memory.subarray(0, size), rest);
  }

  #finish(message: Buffer, rest: Buffer): Buffer {
    this.#size = undefined;
    this.#filled = 0;
    this.#onMessage(message);
    return rest;
  }

  /** Copies as much of a piece as is wanted; gives the rest. */
  #fill(memory: Buffer, size: number, piece: Buffer): Buffer {
    const taken = piece.subarray(0, size - this.#filled);
    memory.set(taken, this.#filled);
    this.#filled += taken.length;
    return piece.subarray(taken.length);
  }
}
