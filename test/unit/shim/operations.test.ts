import { join } from "node:path";
import { Server, ServerCredentials, type ServerUnaryCall, type ServerWritableStream, type sendUnaryData } from "@grpc/grpc-js";
import { describe, expect, it, onTestFinished } from "vitest";
import { ErrorReason } from "../../../src/gen/prunebridge/v1/error.js";
import {
  OperationServiceService,
  type StartRequest,
  type StartResponse,
  type WatchRequest,
  type WatchResponse,
} from "../../../src/gen/prunebridge/v1/operation.js";
import { socketEndpoint } from "../../../src/shim/endpoint.js";
import { Operations, type Run } from "../../../src/shim/operations.js";
import { TIMEOUTS } from "../../../src/shim/options.js";
import { connect, disconnect } from "../../../src/shim/rpc.js";
import { Token } from "../../../src/shim/token.js";
import { temporaryFolder } from "../../fixtures/checkpoints.js";

type Event = NonNullable<WatchResponse["event"]>;

const MODEL = { modelId: "m1", device: "cpu", dtype: "float32", parameters: 1 };
const OPENED: Event = { $case: "succeeded", value: { result: { $case: "modelOpened", value: MODEL }, tensors: [] } };
const CLOSED: Event = { $case: "succeeded", value: { result: { $case: "modelClosed", value: {} }, tensors: [] } };
const PROGRESS: Event = { $case: "progress", value: { phase: "loading", done: 1, total: 2, unit: "tensors", etaSeconds: undefined } };
const failed = (reason: ErrorReason): Event => ({ $case: "failed", value: { reason, message: "it cannot be", hint: "" } });
const LIMITS = { ...TIMEOUTS, stall: 300, detach: 2_000 };

/** Operations over a shim that says of each watch what it is told to, and notes the work that it is given. */
async function operationsOver(
  onWatch: (kind: string, nth: number) => readonly Event[],
): Promise<{ operations: Operations; asked: string[] }> {
  const [asked, watches] = [[] as string[], new Map<string, number>()];
  const server = new Server();
  server.addService(OperationServiceService, {
    start: ({ request: { work } }: ServerUnaryCall<StartRequest, StartResponse>, done: sendUnaryData<StartResponse>) => {
      asked.push(work?.$case === "closeModel" ? `close ${work.value.modelId}` : `${work?.$case}`);
      done(null, { operationId: `${work?.$case}` });
    },
    cancel: (_call: unknown, done: sendUnaryData<object>) => done(null, {}),
    watch: (call: ServerWritableStream<WatchRequest, WatchResponse>) => {
      const { operationId } = call.request;
      const nth = watches.get(operationId) ?? 0;
      watches.set(operationId, nth + 1);
      for (const [i, event] of onWatch(operationId, nth).entries()) call.write({ seq: i + 1, event });
    },
  } as never);
  const path = join(await temporaryFolder(), "s");
  await new Promise((resolve) => server.bindAsync(`unix:${path}`, ServerCredentials.createInsecure(), resolve));
  const stubs = connect(socketEndpoint(path, Token.random()), LIMITS);
  onTestFinished(() => {
    disconnect(stubs);
    server.forceShutdown();
  });
  return { operations: new Operations(stubs, LIMITS), asked };
}

const never = new AbortController().signal;
const opening: Run = {
  work: { $case: "openModel", value: { path: "/x", device: "cpu", dtype: "auto", unreadTensors: [] } },
  feed: undefined,
  abandoned: never,
};

describe("release", () => {
  it("closes a model of which the opening was watched in vain", async () => {
    const { operations, asked } = await operationsOver((kind, nth) => (kind === "closeModel" ? [CLOSED] : nth > 0 ? [OPENED] : []));
    await expect(operations.run(opening, {})).rejects.toMatchObject({ code: "SHIM_STALLED" });
    await operations.release(never);
    expect(asked).toEqual(["openModel", "close m1"]);
  });

  it("asks nothing of an opening that failed", async () => {
    const { operations, asked } = await operationsOver(() => [failed(ErrorReason.ERROR_REASON_GPU_OOM)]);
    await expect(operations.run(opening, {})).rejects.toMatchObject({ code: "GPU_OOM" });
    await operations.release(never);
    expect(asked).toEqual(["openModel"]);
  });

  it.each([
    ["tells what kept a model from being closed", ErrorReason.ERROR_REASON_INTERNAL, /INTERNAL/],
    ["takes a model that is closed already for closed", ErrorReason.ERROR_REASON_UNKNOWN_MODEL, /^done$/],
  ])("%s", async (_what, reason, outcome) => {
    const { operations } = await operationsOver((kind) => [kind === "closeModel" ? failed(reason) : OPENED]);
    await operations.run(opening, {});
    expect(await operations.release(never).then(() => "done", String)).toMatch(outcome);
  });
});

it("what onProgress throws arrives as it is, and ends the work", async () => {
  const { operations } = await operationsOver(() => [PROGRESS, OPENED]);
  const own = new RangeError("the caller's");
  const onProgress = (): never => {
    throw own;
  };
  await expect(operations.run(opening, { onProgress })).rejects.toBe(own);
});
