import type { OnReadOpts, Socket } from "node:net";
import { Duplex } from "node:stream";
import { FRAME, type FrameHeader, FrameReader, SETTING, windowUpdate } from "./frames.js";
import { FLOW_CONTROL_WINDOW, READ_BYTES } from "./options.js";
import { type Limits, Outgoing } from "./outgoing.js";

const ACK = 0x1;
const SETTING_BYTES = 6;

/** As a client begins (RFC 9113, section 3.4). */
const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/** What a stream tells. */
export interface StreamEvents {
  /** Its headers were sent, or it has ended: what it sends may follow. */
  readonly onBegun: () => void;
  /** A piece of data came, which may be used until this returns. */
  readonly onData: (piece: Buffer) => void;
}

interface Stream extends StreamEvents {
  /** Bytes that the peer was not yet allowed to send again. */
  taken: number;
}

/**
 * A connection as Node's HTTP/2 sees it: all its frames but DATA, and the windows of that. Those go past it, from the memory that they lie
 * in and into memory that is used again: V8 counts the buffers that Node reads into, and collects the whole heap for every 30 MB of them.
 */
export class BulkSocket extends Duplex {
  readonly #socket: Socket;
  readonly #received: FrameReader;
  readonly #sent: FrameReader;
  readonly #outgoing: Outgoing;
  readonly #streams = new Map<number, Stream>();
  /** What the peer has set and Node's HTTP/2 has not acknowledged yet. */
  readonly #unacknowledged: Limits[] = [];
  #preface = PREFACE.length;
  /** As of a stream, of all. */
  #taken = 0;

  /** @param open - opens the socket, which is to be read as it is told */
  constructor(open: (onread: OnReadOpts) => Socket) {
    super();
    const callback = (size: number, buffer: Uint8Array): boolean => this.#onRead(Buffer.from(buffer.buffer, buffer.byteOffset, size));
    this.#socket = open({ buffer: Buffer.allocUnsafeSlow(READ_BYTES), callback });
    this.#outgoing = new Outgoing((bytes, onWritten) => void this.#socket.write(bytes, onWritten));
    this.#received = new FrameReader({ onData: (...data) => this.#onData(...data), onFrame: (...frame) => this.#onFrame(...frame) });
    this.#sent = new FrameReader({ onData: () => {}, onFrame: (header) => this.#onSent(header) });
    this.#socket.on("error", (error) => this.destroy(error));
    this.#socket.on("end", () => this.push(null));
    this.#socket.on("close", () => this.destroy());
  }

  /** Carries the data of a stream, of which the headers are about to be sent. */
  open(streamId: number, events: StreamEvents): void {
    this.#streams.set(streamId, { ...events, taken: 0 });
  }

  /** Sends a message of a stream as {@link Outgoing.send} does. */
  send(streamId: number, parts: readonly Uint8Array[]): Promise<boolean> {
    this.#socket.cork();
    const sent = this.#outgoing.send(streamId, parts);
    this.#socket.uncork();
    return sent;
  }

  /** Drops what else comes of a stream, and what is still to be sent. */
  forget(streamId: number): void {
    this.#outgoing.end(streamId);
    this.#streams.get(streamId)?.onBegun();
    this.#streams.delete(streamId);
  }

  /** Says whether a process is kept from ending by the connection. */
  hold(isHeld: boolean): void {
    if (isHeld) this.#socket.ref();
    else this.#socket.unref();
  }

  override _read(): void {
    // What comes is few and small: it is handed on as it comes.
  }

  override _write(frames: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const preface = Math.min(this.#preface, frames.length);
    this.#preface -= preface;
    this.#socket.write(frames);
    this.#sent.add(frames.subarray(preface));
    done();
  }

  override _final(done: () => void): void {
    this.#socket.end();
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket.destroy();
    for (const streamId of this.#streams.keys()) this.forget(streamId);
    done(error);
  }

  #onSent({ type, flags, streamId }: FrameHeader): void {
    // A peer holds DATA to its former limits until it has read the acknowledgement, and resets the stream that goes beyond them.
    if (type === FRAME.settings && flags & ACK) this.#outgoing.adjust(this.#unacknowledged.shift() ?? {});
    const stream = this.#streams.get(streamId);
    // One that was cancelled in the meantime sends nothing any more.
    if (type !== FRAME.headers || !stream) return;
    this.#outgoing.begin(streamId);
    stream.onBegun();
  }

  #onRead(piece: Buffer): boolean {
    try {
      this.#received.add(piece);
    } catch (error) {
      this.destroy(error as Error);
    }
    return true;
  }

  #onData(streamId: number, piece: Buffer): void {
    const stream = this.#streams.get(streamId);
    stream?.onData(piece);
    this.#taken = this.#grant(0, this.#taken + piece.length);
    if (stream) stream.taken = this.#grant(streamId, stream.taken + piece.length);
  }

  /** Lets the peer send again what was taken, a good deal at a time; gives what is left. */
  #grant(streamId: number, taken: number): number {
    if (taken < FLOW_CONTROL_WINDOW / 4) return taken;
    this.#socket.write(windowUpdate(streamId, taken));
    return 0;
  }

  #onFrame({ type, flags, streamId }: FrameHeader, frame: Buffer, payload: Buffer): void {
    this.#socket.cork();
    if (type === FRAME.settings && !(flags & ACK)) this.#unacknowledged.push(limitsOf(payload));
    if (type === FRAME.windowUpdate) this.#outgoing.widen(streamId, payload.readUInt32BE() & 0x7fffffff);
    else this.push(frame);
    this.#socket.uncork();
  }
}

function limitsOf(settings: Buffer): Limits {
  const values = new Map<number, number>();
  for (let at = 0; at + SETTING_BYTES <= settings.length; at += SETTING_BYTES)
    values.set(settings.readUInt16BE(at), settings.readUInt32BE(at + 2));
  return { initialWindow: values.get(SETTING.initialWindowSize), maxFrame: values.get(SETTING.maxFrameSize) };
}
