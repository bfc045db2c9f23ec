import { FRAME, frameHeader } from "./frames.js";

/** As every connection begins (RFC 9113, section 6.5.2). */
const INITIAL = { window: 65_535, frame: 16_384 };

/** What the peer takes, where it says so. */
export interface Limits {
  /** At the beginning of a stream, in bytes. */
  readonly initialWindow?: number | undefined;
  /** In a frame, in bytes. */
  readonly maxFrame?: number | undefined;
}

/** What is to be sent of a message. */
interface Unsent {
  readonly parts: Uint8Array[];
  left: number;
  readonly settle: (isSent: boolean) => void;
}

/** A stream's messages on their way out. */
interface Stream {
  readonly unsent: Unsent[];
  window: number;
}

/** Writes bytes to a connection, and calls back when their memory may be used again, or with what broke the connection. */
type Write = (bytes: Uint8Array, onWritten?: (error?: Error | null) => void) => void;

/** Sends messages as DATA frames, as many bytes at a time as the peer allows. */
export class Outgoing {
  readonly #write: Write;
  readonly #streams = new Map<number, Stream>();
  #initialWindow = INITIAL.window;
  #window = INITIAL.window;
  #maxFrame = INITIAL.frame;

  constructor(write: Write) {
    this.#write = write;
  }

  /** Makes a stream known. */
  begin(streamId: number): void {
    this.#streams.set(streamId, { unsent: [], window: this.#initialWindow });
  }

  /** Sends a message after those before it. Resolves when its memory may be used again; false where the stream has ended before. */
  send(streamId: number, parts: readonly Uint8Array[]): Promise<boolean> {
    return new Promise((settle) => {
      const stream = this.#streams.get(streamId);
      if (!stream) return settle(false);
      const left = parts.reduce((sum, { length }) => sum + length, 0);
      // Nothing would ever be written of it, and what follows would wait for that.
      if (left === 0) return settle(true);
      stream.unsent.push({ parts: [...parts], left, settle });
      this.#sendMore(streamId, stream);
    });
  }

  /** Ends a stream; what was not sent of it is dropped. */
  end(streamId: number): void {
    const stream = this.#streams.get(streamId);
    this.#streams.delete(streamId);
    for (const { settle } of stream?.unsent ?? []) settle(false);
  }

  /** Says that the peer takes more bytes, of a stream or, by the number 0, in all. */
  widen(streamId: number, bytes: number): void {
    const stream = this.#streams.get(streamId);
    if (streamId === 0) this.#window += bytes;
    else if (stream) stream.window += bytes;
    this.#sendAll();
  }

  /** Says what the peer takes from now on, also of streams that have begun. */
  adjust({ initialWindow = this.#initialWindow, maxFrame = this.#maxFrame }: Limits): void {
    for (const stream of this.#streams.values()) stream.window += initialWindow - this.#initialWindow;
    this.#initialWindow = initialWindow;
    this.#maxFrame = maxFrame;
    this.#sendAll();
  }

  #sendAll(): void {
    for (const [streamId, stream] of this.#streams) this.#sendMore(streamId, stream);
  }

  #sendMore(streamId: number, stream: Stream): void {
    for (let first = stream.unsent[0]; first; first = stream.unsent[0]) {
      const length = Math.min(first.left, this.#maxFrame, this.#window, stream.window);
      if (length <= 0) return;
      this.#window -= length;
      stream.window -= length;
      const isLast = length === first.left;
      this.#write(frameHeader({ length, type: FRAME.data, flags: 0, streamId }));
      const { settle } = first;
      const onWritten = (error?: Error | null): void => settle(!error);
      const pieces = taken(first, length);
      for (const [i, piece] of pieces.entries()) this.#write(piece, isLast && i === pieces.length - 1 ? onWritten : undefined);
      if (isLast) stream.unsent.shift();
    }
  }
}

/** Takes so many bytes from the front of a message. */
function taken(message: Unsent, bytes: number): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  message.left -= bytes;
  for (let left = bytes; left > 0; ) {
    const [part = new Uint8Array()] = message.parts;
    const piece = part.subarray(0, left);
    pieces.push(piece);
    left -= piece.length;
    if (piece.length === part.length) message.parts.shift();
    else message.parts[0] = part.subarray(piece.length);
  }
  return pieces;
}
