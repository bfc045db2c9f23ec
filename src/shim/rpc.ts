import { setTimeout as sleep } from "node:timers/promises";
import { type ClientReadableStream, credentials, makeClientConstructor, type ServiceError } from "@grpc/grpc-js";
import { PruneError } from "../errors.js";
import { FeedServiceClient, FeedServiceService, OperationServiceClient, OperationServiceService } from "../gen/prunebridge/v1/operation.js";
import { SessionServiceClient } from "../gen/prunebridge/v1/session.js";
import { readFeedResponse, readResultResponse, writeRequest } from "./chunks.js";
import { CHANNEL_OPTIONS, RETRY_PAUSES, TIMEOUTS } from "./options.js";
import { fromCallError, isUnavailable } from "./translate.js";

// The generated clients, but for the two methods that carry chunks.
const FeedClient = makeClientConstructor(
  { feed: { ...FeedServiceService.feed, requestSerialize: writeRequest, responseDeserialize: readFeedResponse } },
  FeedServiceClient.serviceName,
) as unknown as typeof FeedServiceClient; // grpc-js types made clients as any client
const OperationClient = makeClientConstructor(
  { ...OperationServiceService, readResult: { ...OperationServiceService.readResult, responseDeserialize: readResultResponse } },
  OperationServiceClient.serviceName,
) as unknown as typeof OperationServiceClient; // as above

/** The stubs of one connection. */
export interface Stubs {
  readonly session: SessionServiceClient;
  readonly operations: OperationServiceClient;
  readonly feeds: FeedServiceClient;
}

/** Connects to a shim's address; nothing is sent yet. */
export function connect(address: string): Stubs {
  const insecure = credentials.createInsecure();
  const operations = new OperationClient(address, insecure, CHANNEL_OPTIONS);
  const shared = { ...CHANNEL_OPTIONS, channelOverride: operations.getChannel() };
  return {
    operations,
    session: new SessionServiceClient(address, insecure, shared),
    feeds: new FeedClient(address, insecure, shared),
  };
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
