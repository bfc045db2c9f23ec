import { type ClientReadableStream, credentials, InterceptingCall, type Interceptor, type ServiceError } from "@grpc/grpc-js";
import { onAbort } from "../cancel.js";
import { PruneError } from "../errors.js";
import { OperationServiceClient } from "../gen/prunebridge/v1/operation.js";
import { SessionServiceClient } from "../gen/prunebridge/v1/session.js";
import { BulkConnection } from "./bulkConnection.js";
import type { Endpoint } from "./endpoint.js";
import { channelOptions, type Timeouts } from "./options.js";
import { Retries } from "./retries.js";
import type { Silence } from "./silence.js";
import type { Token } from "./token.js";

/** The stubs of one connection. */
export interface Stubs {
  readonly session: SessionServiceClient;
  readonly operations: OperationServiceClient;
  /** For the methods that carry tensors. */
  readonly bulk: BulkConnection;
}

/** Makes the stubs for a shim, whose every call carries its token; nothing is sent yet. */
export function connect(endpoint: Endpoint, timeouts: Timeouts): Stubs {
  const { target, token, secureContext, serverName } = endpoint;
  const options = { ...channelOptions(timeouts, serverName), interceptors: [bearing(token)] };
  const secured = secureContext ? credentials.createFromSecureContext(secureContext) : credentials.createInsecure();
  const operations = new OperationServiceClient(target, secured, options);
  return {
    operations,
    session: new SessionServiceClient(target, secured, { ...options, channelOverride: operations.getChannel() }),
    bulk: new BulkConnection(endpoint, timeouts),
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
  stubs.bulk.close();
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

/** What is asked of a method that answers with tensors. */
interface BulkRead {
  readonly path: string;
  readonly request: Uint8Array;
  /** May use each message until it returns. */
  readonly onMessage: (message: Buffer) => void;
}

/** Reads the answers to one request, of which the silence has a limit, unless they are abandoned. Throws what {@link readStream} throws. */
export async function readBulk(
  bulk: BulkConnection,
  { path, request, onMessage }: BulkRead,
  silence: Silence,
  abandoned: AbortSignal,
): Promise<void> {
  let stalled = false;
  const take = (message: Buffer): void => {
    timer.refresh();
    onMessage(message);
  };
  const call = bulk.open({ path, onMessage: take });
  const timer = setTimeout(() => {
    stalled = true;
    call.cancel();
  }, silence.left);
  const undo = onAbort(abandoned, () => call.cancel());
  try {
    void call.write([request]);
    call.end();
    await call.done;
  } catch (error) {
    throw stalled ? silence.error(error) : error;
  } finally {
    clearTimeout(timer);
    undo();
  }
}
