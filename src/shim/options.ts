import type { Settings } from "node:http2";
import type { ChannelOptions } from "@grpc/grpc-js";

const MIB = 1 << 20;

/** How large tensors are cut for the wire; measured at 2.5 to 3 times the throughput of gRPC's own defaults. */
export const CHUNK_BYTES = MIB;

/** The largest message, either way. */
export const MAX_MESSAGE_BYTES = 16 * MIB;

/** Bytes on their way here that are not yet taken. */
export const FLOW_CONTROL_WINDOW = 4 * MIB;

/** The largest frame of HTTP/2 that is taken. */
export const MAX_FRAME_BYTES = MIB;

/** What is read from a socket at a time. */
export const READ_BYTES = 256 << 10;

/** Of the connection that carries tensors. */
export const BULK_SETTINGS: Settings = { enablePush: false, initialWindowSize: FLOW_CONTROL_WINDOW, maxFrameSize: MAX_FRAME_BYTES };

/** The versions of the contract that this client speaks. */
export const PROTOCOL = { min: 1, max: 1 } as const;

const CHANNEL_OPTIONS: ChannelOptions = {
  "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
  "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
  "grpc-node.flow_control_window": FLOW_CONTROL_WINDOW,
  "grpc.keepalive_permit_without_calls": 1,
  // Only we know which calls may be repeated.
  "grpc.enable_retries": 0,
  "grpc.use_local_subchannel_pool": 1,
  "grpc.enable_http_proxy": 0,
};

/** Every limit on waiting, in milliseconds. */
export interface Timeouts {
  /** From starting the process to its readiness line: an interpreter and its imports, from a cold disk. Default: 60 s. */
  readonly spawn: number;
  /** From starting the ranks of a job to its readiness line: a checkpoint is loaded in between. Default: 15 min. */
  readonly launch: number;
  /** For a rank of a launched job that died or was stopped to be known as lost. Default: 60 s. */
  readonly lostRank: number;
  /** To a connection that speaks gRPC. Default: 15 s. */
  readonly connect: number;
  /** For a job that dials in to say who it is, and to speak gRPC once it is answered. Default: 10 s. */
  readonly dialIn: number;
  /** The shim imports torch before it can tell its devices. Default: 120 s. */
  readonly handshake: number;
  /** A call with one answer, all its tries together. Default: 15 s. */
  readonly unary: number;
  /** Silence on a stream, which carries a sign of life every 10 s, over as many connections as it takes. Default: 60 s. */
  readonly stall: number;
  /** Between two pings of a connection; the shim takes more than one in 10 s amiss. Default: 30 s. */
  readonly keepalive: number;
  /** From a ping to its answer, or the connection is given up. Default: 10 s. */
  readonly keepaliveAnswer: number;
  /** How long a connection that closes waits for what it had in a shim that goes on, twice. Default: 5 s. */
  readonly detach: number;
  /** Between SIGTERM and SIGKILL. Default: 30 s. */
  readonly terminate: number;
  /** How long a broken connection may precede the news that the process has ended. Default: 2 s. */
  readonly exitNews: number;
  /** For a shim that others use to say, after a connection broke, whether it was started anew. Default: 5 s. */
  readonly restartNews: number;
}

/** The defaults. */
export const TIMEOUTS: Timeouts = {
  spawn: 60_000,
  launch: 900_000,
  lostRank: 60_000,
  connect: 15_000,
  dialIn: 10_000,
  handshake: 120_000,
  unary: 15_000,
  stall: 60_000,
  keepalive: 30_000,
  keepaliveAnswer: 10_000,
  detach: 5_000,
  terminate: 30_000,
  exitNews: 2_000,
  restartNews: 5_000,
};

/** Channel options; the shim's options module has their counterparts. gRPC ignores a misspelt name in silence, so a test checks each. */
export function channelOptions({ keepalive, keepaliveAnswer }: Timeouts, serverName?: string): ChannelOptions {
  return {
    ...CHANNEL_OPTIONS,
    "grpc.keepalive_time_ms": keepalive,
    "grpc.keepalive_timeout_ms": keepaliveAnswer,
    ...(serverName !== undefined && { "grpc.ssl_target_name_override": serverName, "grpc.default_authority": serverName }),
  };
}

/** How often a call is tried again while the shim is unavailable, and the pause before each try, in milliseconds. */
export const RETRY_PAUSES = [100, 400, 1_600] as const;
