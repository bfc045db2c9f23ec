import { type ClientReadableStream, InterceptingCall, type Interceptor, makeClientConstructor, type ServiceError } from "@grpc/grpc-js";
import { onAbort } from "../cancel.js";
import { PruneError } from "../errors.js";
import { FeedServiceClient, FeedServiceService, OperationServiceClient, OperationServiceService } from "../gen/prunebridge/v1/operation.js";
import { SessionServiceClient } from "../gen/prunebridge/v1/session.js";
import { readFeedResponse, readResultResponse, writeRequest } from "./chunks.js";
import type { Endpoint } from "./endpoint.js";
import { channelOptions, type Timeouts } from "./options.js";
import { Retries } from "./retries.js";
import type { Silence } from "./silence.js";
import type { Token } from "./token.js";

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

/** Makes the stubs for a shim, whose every call carries its token; nothing is sent yet. */
export function connect({ target, token, credentials, serverName }: Endpoint, timeouts: Timeouts): Stubs {
  const options = { ...channelOptions(timeouts, serverName), interceptors: [bearing(token)] };
  const operations = new OperationClient(target, credentials, options);
  const shared = { ...options, channelOverride: operations.getChannel() };
  return {
    operations,
    session: new SessionServiceClient(target, credentials, shared),
    feeds: new FeedClient(target, credentials, shared),
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

/** Rejects with SHIM_UNREACHABLE where there is no connection in time: to a peer that accepts and says nothing gRPC waits for ever. */
export function unconnected(stubs: Stubs, timeout: number): Promise<never> {
  return new Promise((_, reject) => {
    stubs.operations.waitForReady(Date.now() + timeout, (cause) => {
      if (!cause) return;
      const detail = `nothing that speaks gRPC answered at ${stubs.operations.getChannel().getTarget()} within ${timeout / 1000} s`;
      reject(new PruneError("SHIM_UNREACHABLE", detail, { hint: "check the address, and that a shim serves it", cause }));
    });
  });
}

/** Makes a unary call with a deadline for all its tries: it is made again while the shim is unavailable. Throws PruneError. */
export async function callUnary<Response>(call: UnaryCall<Response>, timeout: number): Promise<Response> {
  const deadline = new Date(Date.now() + timeout);
  for (const retries = new Retries(); ; ) {
    try {
      return await new Promise<Response>((resolve, reject) => {
        call({ deadline }, (error, response) => (error ? reject(error) : resolve(response)));
      });
    } catch (error) {
      await retries.pause(error);
    }
  }
}

/** Reads a response stream, of which the silence has a limit, unless it is abandoned. Throws what gRPC throws, or SHIM_STALLED. */
export async function* readStream<Response>(
  stream: ClientReadableStream<Response>,
  silence: Silence,
  abandoned: AbortSignal,
): AsyncGenerator<Response, void, void> {
  let stalled = false;
  const onStall = (): void => {
    stalled = true;
    stream.cancel();
  };
  const undo = onAbort(abandoned, () => stream.cancel());
  let timer = setTimeout(onStall, silence.left);
  try {
    for await (const message of stream) {
      clearTimeout(timer);
      yield message as Response; // grpc-js types its streams' items as any
      silence.end();
      timer = setTimeout(onStall, silence.left);
    }
  } catch (error) {
    throw stalled ? silence.error(error) : error;
  } finally {
    clearTimeout(timer);
    undo();
    stream.cancel();
  }
}
