import type { ChannelOptions } from "@grpc/grpc-js";

const MIB = 1 << 20;

/** How large tensors are cut for the wire; measured at 2.5 to 3 times the throughput of gRPC's own defaults. */
export const CHUNK_BYTES = MIB;

/** The versions of the contract that this client speaks. */
export const PROTOCOL = { min: 1, max: 1 } as const;

/** Channel options; the shim's options module has their counterparts. gRPC ignores a misspelt name in silence, so a test checks each. */
export const CHANNEL_OPTIONS: ChannelOptions = {
  "grpc.max_receive_message_length": 16 * MIB,
  "grpc.max_send_message_length": 16 * MIB,
  "grpc-node.flow_control_window": 4 * MIB,
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.keepalive_permit_without_calls": 1,
  // Only we know which calls may be repeated.
  "grpc.enable_retries": 0,
  "grpc.use_local_subchannel_pool": 1,
  "grpc.enable_http_proxy": 0,
};

/** Every limit on waiting, in milliseconds. */
export const TIMEOUTS = {
  /** From starting the process to its readiness line: an interpreter and its imports, from a cold disk. */
  spawn: 60_000,
  /** The shim imports torch before it can tell its devices. */
  handshake: 120_000,
  unary: 15_000,
  /** How long a connection that closes waits for what it had in a shim that goes on. */
  detach: 5_000,
  /** Silence on a stream, which carries a sign of life every 10 s. */
  stall: 60_000,
  /** Between SIGTERM and SIGKILL. */
  terminate: 30_000,
  /** How long a broken connection may precede the news that the process has ended. */
  exitNews: 2_000,
} as const;

/** How often a call is tried again while the shim is unavailable, and the pause before each try, in milliseconds. */
export const RETRY_PAUSES = [100, 400, 1_600] as const;
