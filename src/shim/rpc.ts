import { setTimeout as sleep } from "node:timers/promises";
import { type ClientReadableStream, InterceptingCall, type Interceptor, type ServiceError } from "@grpc/grpc-js";
import { PruneError } from "../errors.js";
import { FeedServiceClient, OperationServiceClient } from "../gen/prunebridge/v1/operation.js";
import { SessionServiceClient } from "../gen/prunebridge/v1/session.js";
import type { Endpoint } from "./endpoint.js";
import { CHANNEL_OPTIONS, RETRY_PAUSES, TIMEOUTS } from "./options.js";
import type { Token } from "./token.js";
import { fromCallError, isUnavailable } from "./translate.js";

/** The stubs of one connection. */
export interface Stubs {
  readonly session: SessionServiceClient;
  readonly operations: OperationServiceClient;
  readonly feeds: FeedServiceClient;
}

/** Makes the stubs for a shim, whose every call carries its token; nothing is sent yet. */
export function connect({ target, token, credentials, channelOptions }: Endpoint): Stubs {
  const options = { ...CHANNEL_OPTIONS, ...channelOptions, interceptors: [bearing(token)] };
  const operations = new OperationServiceClient(target, credentials, options);
  const shared = { ...options, channelOverride: operations.getChannel() };
  return {
    operations,
    session: new SessionServiceClient(target, credentials, shared),
    feeds: new FeedServiceClient(target, credentials, shared),
  };
}

function bearing(token: Token): Interceptor {
  return (options, next) =>
    new InterceptingCall(next(options), {
      start: (metadata, listener, start) => {
        // The caller's own metadata serve many calls.
        const own = metadata.clone();
        own.set("authorization", `Bearer ${token.reveal()}`);
        start(own, listener);
      },
    });
}

/** Closes a connection. */
export function disconnect(stubs: Stubs): void {
  stubs.operations.close();
}

type UnaryCall<Response> = (options: { deadline: Date }, done: (error: ServiceError | null, response: Response) => void) => unknown;

/** Makes a unary call with a deadline, again while the shim is unavailable. Throws PruneError. */
export async function callUnary<Response>(call: UnaryCall<Response>, timeout: number = TIMEOUTS.unary): Promise<Response> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await new Promise<Response>((resolve, reject) => {
        call({ deadline: new Date(Date.now() + timeout) }, (error, response) => (error ? reject(error) : resolve(response)));
      });
    } catch (error) {
      const pause = RETRY_PAUSES[attempt];
      if (pause === undefined || !isUnavailable(error)) throw fromCallError(error);
      await sleep(pause);
    }
  }
}

/** Reads a response stream that must not be silent for longer than the stall limit. Throws what gRPC throws, or SHIM_STALLED. */
export async function* readStream<Response>(stream: ClientReadableStream<Response>): AsyncGenerator<Response, void, void> {
  let stalled = false;
  const onStall = (): void => {
    stalled = true;
    stream.cancel();
  };
  let timer = setTimeout(onStall, TIMEOUTS.stall);
  try {
    for await (const message of stream) {
      clearTimeout(timer);
      yield message as Response; // grpc-js types its streams' items as any
      timer = setTimeout(onStall, TIMEOUTS.stall);
    }
  } catch (error) {
    if (stalled)
      throw new PruneError("SHIM_STALLED", `the shim was silent for ${TIMEOUTS.stall / 1000} s`, { hint: "see its log", cause: error });
    throw error;
  } finally {
    clearTimeout(timer);
    stream.cancel();
  }
}
