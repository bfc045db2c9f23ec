import { type ClientHttp2Session, connect } from "node:http2";
import { connect as connectSocket, isIP, type OnReadOpts, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { status } from "@grpc/grpc-js";
import { BulkCall, type CallOptions, type Connected } from "./bulkCall.js";
import { BulkSocket } from "./bulkSocket.js";
import { callError } from "./callError.js";
import { type Endpoint, type Place, placeOf } from "./endpoint.js";
import { BULK_SETTINGS, FLOW_CONTROL_WINDOW, type Timeouts } from "./options.js";

interface Counted extends Connected {
  /** Those that are open. */
  calls: number;
}

/**
 * The connection of the calls that carry tensors: gRPC straight over Node's HTTP/2, which takes a tensor's bytes from where they lie, and
 * of which what comes need not be kept. grpc-js allocates each byte again, once or twice, and collecting that takes longer than sending.
 */
export class BulkConnection {
  readonly #endpoint: Endpoint;
  readonly #timeouts: Timeouts;
  /** Besides the one for new calls, those that others still end on. */
  readonly #open = new Set<Counted>();
  #closed = false;

  /** Nothing is connected before a call needs it; after a connection broke, the next call makes another. */
  constructor(endpoint: Endpoint, timeouts: Timeouts) {
    this.#endpoint = endpoint;
    this.#timeouts = timeouts;
  }

  /** Begins a call. Throws where the connection was closed. */
  open(options: CallOptions): BulkCall {
    if (this.#closed) throw callError(status.CANCELLED, "the connection was closed on this side");
    const connected = this.#usable();
    const call = new BulkCall(connected, this.#endpoint.token, options);
    // A process may end while its connections are idle.
    connected.calls += 1;
    connected.socket.hold(true);
    const ended = (): void => {
      connected.calls -= 1;
      if (connected.calls === 0) connected.socket.hold(false);
    };
    call.done.then(ended, ended);
    return call;
  }

  /** Ends the connection, and by it the calls that are open. */
  close(): void {
    this.#closed = true;
    for (const { socket } of this.#open) socket.destroy();
  }

  #usable(): Counted {
    for (const connected of this.#open) if (!isOver(connected)) return connected;
    const connected = begin(this.#endpoint, this.#timeouts);
    this.#open.add(connected);
    connected.socket.once("close", () => this.#open.delete(connected));
    return connected;
  }
}

/** Whether a connection broke, or the peer takes no new calls over it. */
function isOver({ session, socket }: Connected): boolean {
  return session.closed || session.destroyed || socket.destroyed;
}

function begin(endpoint: Endpoint, timeouts: Timeouts): Counted {
  const place = placeOf(endpoint.target);
  const socket = new BulkSocket((onread) => openSocket(place, endpoint, onread));
  const authority = endpoint.serverName ?? ("path" in place ? "localhost" : endpoint.target.slice("dns:".length));
  const scheme = endpoint.secureContext ? "https" : "http";
  const session = connect(`${scheme}://${authority}`, { createConnection: () => socket, settings: BULK_SETTINGS });
  // Its calls tell what broke it.
  session.on("error", () => {});
  session.once("connect", () => session.setLocalWindowSize(FLOW_CONTROL_WINDOW));
  const answered = within(timeouts.connect, socket, "nothing that speaks HTTP/2 answered");
  session.once("remoteSettings", () => {
    answered();
    keepAlive(session, socket, timeouts);
  });
  return { session, socket, authority, calls: 0 };
}

function openSocket(place: Place, { secureContext, serverName }: Endpoint, onread: OnReadOpts): Socket {
  // Node's HTTP/2 sets that too, but on what it takes for the socket.
  if ("path" in place || !secureContext) return connectSocket({ ...place, onread }).setNoDelay(true);
  const servername = serverName ?? (isIP(place.host) ? "" : place.host);
  // Its types lack onread.
  const options = { ...place, secureContext, servername, ALPNProtocols: ["h2"], onread };
  const socket = connectTls(options);
  // Nothing is said to a peer before its certificate is known.
  socket.cork();
  return socket.setNoDelay(true).once("secureConnect", () => socket.uncork());
}

function keepAlive(session: ClientHttp2Session, socket: BulkSocket, { keepalive, keepaliveAnswer }: Timeouts): void {
  const pings = setInterval(() => {
    const answered = within(keepaliveAnswer, socket, "a ping was not answered");
    if (!session.destroyed) session.ping(answered);
  }, keepalive).unref();
  socket.once("close", () => clearInterval(pings));
}

/** Breaks a connection unless what is given back is called in time. */
function within(limit: number, socket: BulkSocket, failure: string): () => void {
  const timer = setTimeout(() => socket.destroy(new Error(`${failure} within ${limit / 1000} s`)), limit).unref();
  return () => clearTimeout(timer);
}
