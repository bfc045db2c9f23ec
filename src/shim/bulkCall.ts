import { type ClientHttp2Session, type ClientHttp2Stream, constants, type IncomingHttpHeaders } from "node:http2";
import { status } from "@grpc/grpc-js";
import type { BulkSocket } from "./bulkSocket.js";
import { callError, errorOfReset, errorOfTrailers } from "./callError.js";
import { MessageReader, PREFIX_BYTES } from "./messageReader.js";
import { CHUNK_BYTES, MAX_MESSAGE_BYTES } from "./options.js";
import type { Token } from "./token.js";

const OK = constants.HTTP_STATUS_OK;

/** A serialised message, in the parts that it lies in. */
export type Parts = readonly Uint8Array[];

/** What a call is begun with. */
export interface CallOptions {
  /** For example `/prunebridge.v1.FeedService/Feed`. */
  readonly path: string;
  /** Takes each message that comes, and may use it until it returns. The call ends with what it throws. */
  readonly onMessage: (message: Buffer) => void;
}

/** A connection, and what its data goes past. */
export interface Connected {
  readonly session: ClientHttp2Session;
  readonly socket: BulkSocket;
  /** What the peer is called. */
  readonly authority: string;
}

/** A call of a shim, straight over HTTP/2. */
export class BulkCall {
  /** Resolves when the call has succeeded and all that came was taken. Rejects as calls of grpc-js do, or with what `onMessage` threw. */
  readonly done: Promise<void>;
  readonly #socket: BulkSocket;
  readonly #stream: ClientHttp2Stream;
  readonly #reader: MessageReader;
  /** Once its headers are sent. */
  readonly #begun: Promise<void>;
  #sent: Promise<boolean> = Promise.resolve(true);
  #unsent = 0;
  #settle: (error?: unknown) => void = () => {};
  #trailers: IncomingHttpHeaders | undefined;
  #httpStatus: number | undefined;

  constructor({ session, socket, authority }: Connected, token: Token, { path, onMessage }: CallOptions) {
    this.#socket = socket;
    this.#reader = new MessageReader(onMessage);
    this.done = new Promise((resolve, reject) => {
      this.#settle = (error) => (error === undefined ? resolve() : reject(error));
    });
    this.#stream = session.request({
      [constants.HTTP2_HEADER_METHOD]: "POST",
      [constants.HTTP2_HEADER_AUTHORITY]: authority,
      [constants.HTTP2_HEADER_PATH]: path,
      "content-type": "application/grpc",
      te: "trailers",
      authorization: `Bearer ${token.reveal()}`,
    });
    this.#begun = new Promise((resolve) => {
      socket.open(this.#id, { onBegun: resolve, onData: (piece) => this.#take(piece) });
    });
    this.#listen(session);
  }

  /** Sends a message. Resolves when its memory may be used again, or the call has ended. */
  async write(parts: Parts): Promise<void> {
    const size = parts.reduce((sum, { length }) => sum + length, 0);
    if (size > MAX_MESSAGE_BYTES) {
      this.#end(callError(status.RESOURCE_EXHAUSTED, `a message of ${size} bytes was to be sent; ${MAX_MESSAGE_BYTES} are the most`));
      return;
    }
    const prefix = Buffer.alloc(PREFIX_BYTES);
    prefix.writeUInt32BE(size, 1);
    this.#unsent += size;
    this.#sent = this.#begun.then(() => this.#socket.send(this.#id, [prefix, ...parts]));
    const isSent = await this.#sent;
    this.#unsent -= size;
    // Whoever goes on at once would keep the news of the end from being told.
    if (!isSent) await this.done.catch(() => {});
  }

  /** Whether more than a chunk waits to be sent. */
  get isFull(): boolean {
    return this.#unsent > CHUNK_BYTES;
  }

  /** Says that no message follows. */
  end(): void {
    void this.#sent.then(() => this.#stream.end());
  }

  /** Ends the call on both sides. */
  cancel(): void {
    this.#end(callError(status.CANCELLED, "cancelled on this side"));
  }

  get #id(): number {
    return this.#stream.id ?? 0;
  }

  #listen(session: ClientHttp2Session): void {
    let cause: Error | undefined;
    const stream = this.#stream;
    stream.on("response", (headers, flags) => {
      this.#httpStatus = headers[":status"];
      if (flags & constants.NGHTTP2_FLAG_END_STREAM) this.#trailers = headers;
      // A gateway, of which the text says nothing to a program.
      if (this.#httpStatus !== OK) this.#end(errorOfTrailers(headers, this.#httpStatus));
    });
    stream.on("trailers", (headers) => {
      this.#trailers = headers;
    });
    stream.resume();
    stream.on("error", (error) => {
      cause = error;
    });
    stream.on("end", () => {
      if (this.#trailers) this.#end(this.#errorOf(this.#trailers));
    });
    stream.on("close", () => {
      if (this.#trailers) this.#end(this.#errorOf(this.#trailers));
      else if (session.destroyed) this.#end(callError(status.UNAVAILABLE, `the connection broke${cause ? `: ${cause.message}` : ""}`));
      else if (this.#httpStatus === OK && stream.rstCode === constants.NGHTTP2_NO_ERROR) this.#end(errorOfTrailers({}, OK));
      else this.#end(errorOfReset(stream.rstCode));
    });
  }

  #take(piece: Buffer): void {
    try {
      this.#reader.add(piece);
    } catch (error) {
      // Data goes past Node's HTTP/2, and may be here before what that tells of the headers.
      if (this.#httpStatus === undefined) this.#stream.once("response", () => this.#end(error));
      else this.#end(error);
      this.#socket.forget(this.#id);
    }
  }

  #errorOf(trailers: IncomingHttpHeaders): Error | undefined {
    const error = errorOfTrailers(trailers, this.#httpStatus);
    return !error && this.#reader.isWithinMessage ? callError(status.INTERNAL, "the call ended within a message") : error;
  }

  /** The first end counts. */
  #end(error?: unknown): void {
    this.#settle(error);
    this.#socket.forget(this.#id);
    this.#stream.close(constants.NGHTTP2_CANCEL);
  }
}
