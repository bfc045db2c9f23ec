import { Metadata } from "@grpc/grpc-js";
import type { HandshakeResponse } from "../gen/prunebridge/v1/session.js";
import type { Endpoint } from "./endpoint.js";
import { PROTOCOL, type Timeouts } from "./options.js";
import { callUnary, connect, disconnect, type Stubs, unconnected } from "./rpc.js";

const META = new Metadata();

/** What is opened over a new connection, which ends where that fails. */
export async function connected<T>(endpoint: Endpoint, timeouts: Timeouts, open: (stubs: Stubs) => Promise<T>): Promise<T> {
  const stubs = connect(endpoint, timeouts);
  try {
    return await open(stubs);
  } catch (error) {
    disconnect(stubs);
    throw error;
  }
}

/** Agrees on a protocol version; gives what the shim is. Throws PROTOCOL_MISMATCH, UNAUTHENTICATED, SHIM_UNREACHABLE or SHIM_STALLED. */
export function shakeHands(stubs: Stubs, client: string, timeouts: Pick<Timeouts, "handshake" | "connect">): Promise<HandshakeResponse> {
  const request = { protocolMin: PROTOCOL.min, protocolMax: PROTOCOL.max, client };
  const answer = callUnary<HandshakeResponse>((options, done) => stubs.session.handshake(request, META, options, done), timeouts.handshake);
  return Promise.race([answer, unconnected(stubs, timeouts.connect)]);
}
