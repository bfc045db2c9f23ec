// HTTP/2's frames (RFC 9113, section 4.1): a header of nine bytes, and what it says follows.

import { MAX_FRAME_BYTES } from "./options.js";

const HEADER_BYTES = 9;
const PADDED = 0x8;

/** Types of frames. */
export const FRAME = { data: 0, headers: 1, settings: 4, windowUpdate: 8 } as const;

/** Settings that bind the sender of DATA. */
export const SETTING = { initialWindowSize: 4, maxFrameSize: 5 } as const;

/** What the header of a frame says. */
export interface FrameHeader {
  readonly length: number;
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
}

/** The header of a frame, as it is sent. */
export function frameHeader({ length, type, flags, streamId }: FrameHeader): Buffer {
  const header = Buffer.allocUnsafe(HEADER_BYTES);
  header.writeUIntBE(length, 0, 3);
  header[3] = type;
  header[4] = flags;
  header.writeUInt32BE(streamId, 5);
  return header;
}

/** A frame that says how many more bytes may be sent, on a stream or, by the number 0, the connection. */
export function windowUpdate(streamId: number, bytes: number): Buffer {
  const frame = Buffer.alloc(HEADER_BYTES + 4);
  frameHeader({ length: 4, type: FRAME.windowUpdate, flags: 0, streamId }).copy(frame);
  frame.writeUInt32BE(bytes, HEADER_BYTES);
  return frame;
}

/** What comes over a connection. */
export interface FrameHandler {
  /** Takes a piece of a stream's DATA, and may use it until it returns. */
  onData(streamId: number, piece: Buffer): void;
  /** Takes any other frame as it came, whole and in memory of its own; also the DATA that ends a stream. */
  onFrame(header: FrameHeader, frame: Buffer, payload: Buffer): void;
}

/** Parts what comes over a connection, in whatever pieces, into frames. */
export class FrameReader {
  readonly #handler: FrameHandler;
  readonly #headerBytes = Buffer.alloc(HEADER_BYTES);
  #header: FrameHeader | undefined;
  /** Of the header, or else of what follows it. */
  #filled = 0;
  #frame: Buffer | undefined;

  constructor(handler: FrameHandler) {
    this.#handler = handler;
  }

  /** Takes the next piece. Throws where the peer does not keep to the protocol. */
  add(piece: Buffer): void {
    for (let rest = piece; rest.length > 0; ) rest = this.#header ? this.#readPayload(this.#header, rest) : this.#readHeader(rest);
  }

  #readHeader(piece: Buffer): Buffer {
    const taken = piece.copy(this.#headerBytes, this.#filled);
    this.#filled += taken;
    if (this.#filled === HEADER_BYTES) this.#begin(parsed(this.#headerBytes));
    return piece.subarray(taken);
  }

  #begin(header: FrameHeader): void {
    const { length, type, flags } = header;
    if (length > MAX_FRAME_BYTES) throw new Error(`a frame of ${length} bytes; ${MAX_FRAME_BYTES} are the most`);
    if (type === FRAME.data && flags & PADDED) throw new Error("padded DATA, which no peer of gRPC sends");
    this.#header = header;
    this.#filled = 0;
    if (type !== FRAME.data || flags !== 0) {
      this.#frame = Buffer.allocUnsafe(HEADER_BYTES + length);
      this.#headerBytes.copy(this.#frame);
    }
    if (length === 0) this.#finish(header);
  }

  #readPayload(header: FrameHeader, piece: Buffer): Buffer {
    const taken = piece.subarray(0, header.length - this.#filled);
    if (this.#frame) taken.copy(this.#frame, HEADER_BYTES + this.#filled);
    else this.#handler.onData(header.streamId, taken);
    this.#filled += taken.length;
    if (this.#filled === header.length) this.#finish(header);
    return piece.subarray(taken.length);
  }

  #finish(header: FrameHeader): void {
    const frame = this.#frame;
    this.#header = undefined;
    this.#frame = undefined;
    this.#filled = 0;
    if (frame) this.#handler.onFrame(header, frame, frame.subarray(HEADER_BYTES));
  }
}

function parsed(bytes: Buffer): FrameHeader {
  return {
    length: bytes.readUIntBE(0, 3),
    type: bytes.readUInt8(3),
    flags: bytes.readUInt8(4),
    streamId: bytes.readUInt32BE(5) & 0x7fffffff,
  };
}
