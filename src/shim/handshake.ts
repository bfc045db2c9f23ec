import { Metadata } from "@grpc/grpc-js";
import type { HandshakeResponse } from "../gen/prunebridge/v1/session.js";
import type { Endpoint } from "./endpoint.js";
import { PROTOCOL } from "./options.js";
import { callUnary, connect, disconnect, type Stubs } from "./rpc.js";

const META = new Metadata();

/** What is opened over a new connection, which ends where that fails. */
export async function connected<T>(endpoint: Endpoint, open: (stubs: Stubs) => Promise<T>): Promise<T> {
  const stubs = connect(endpoint);
  try {
    return await open(stubs);
  } catch (error) {
    disconnect(stubs);
    throw error;
  }
}

/** Agrees on a protocol version; gives what the shim is. Throws PROTOCOL_MISMATCH, UNAUTHENTICATED, SHIM_UNREACHABLE or SHIM_STALLED. */
export function shakeHands({ session }: Stubs, client: string, timeout: number): Promise<HandshakeResponse> {
  const request = { protocolMin: PROTOCOL.min, protocolMax: PROTOCOL.max, client };
  return callUnary<HandshakeResponse>((options, done) => session.handshake(request, META, options, done), timeout);
}
