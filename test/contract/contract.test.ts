// The shim as a stranger sees it: through proto-loader, knowing the .proto files and nothing else of ours.
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import {
  type Client,
  credentials,
  InterceptingCall,
  type InterceptorOptions,
  loadPackageDefinition,
  type NextCall,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ErrorDetail, ErrorReason } from "../../src/gen/prunebridge/v1/error.js";
import { ShimProcess } from "../../src/shim/process.js";
import { temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";

const HERE = dirname(fileURLToPath(import.meta.url));
const PROTO = join(HERE, "..", "..", "proto");
const definition = loadSync(
  ["session", "operation"].map((name) => `prunebridge/v1/${name}.proto`),
  {
    includeDirs: [PROTO],
    keepCase: true,
    longs: Number,
    enums: String,
    oneofs: true,
    defaults: true,
  },
);

type Message = Record<string, unknown>;
type Stub = Client & Record<string, (...args: unknown[]) => never>;
type Call = (request: Message) => Promise<Message>;

let shim: ShimProcess;
let stubs: Record<string, Stub>;

beforeAll(async () => {
  shim = await ShimProcess.start({ allowPython: [join(HERE, "../fixtures/python")] });
  const loaded = loadPackageDefinition(definition) as unknown as {
    prunebridge: { v1: Record<string, new (address: string, with_: unknown, options: unknown) => Stub> };
  };
  const interceptors = [bearer(shim.endpoint.token.reveal())];
  stubs = Object.fromEntries(
    ["SessionService", "OperationService", "FeedService"].map((name) => {
      const Service = loaded.prunebridge.v1[name];
      if (!Service) throw new Error(`no ${name}`);
      return [name, new Service(shim.address, credentials.createInsecure(), { interceptors })];
    }),
  );
});
afterAll(async () => {
  for (const stub of Object.values(stubs ?? {})) stub.close();
  await shim?.stop();
});

function bearer(token: string): (options: InterceptorOptions, next: NextCall) => InterceptingCall {
  return (options, next) =>
    new InterceptingCall(next(options), {
      start: (metadata, listener, start) => {
        const own = metadata.clone();
        own.set("authorization", `Bearer ${token}`);
        start(own, listener);
      },
    });
}

function unary(service: string, method: string): Call {
  const stub = stubs[service] as Stub;
  return promisify((stub[method] as (...args: unknown[]) => unknown).bind(stub)) as Call;
}

async function watch(operation_id: unknown, after_seq = 0): Promise<Message[]> {
  const stub = stubs["OperationService"] as Stub;
  const stream = (stub["Watch"] as (request: Message) => AsyncIterable<Message>).call(stub, { operation_id, after_seq });
  const events: Message[] = [];
  for await (const event of stream) events.push(event);
  return events;
}

type FeedCall = AsyncIterable<Message> & { write(message: Message): void; end(): void };

function openFeed(): FeedCall {
  const stub = stubs["FeedService"] as Stub;
  return (stub["Feed"] as () => FeedCall).call(stub);
}

async function feed(messages: readonly Message[]): Promise<Message[]> {
  const call = openFeed();
  for (const message of messages) call.write(message);
  call.end();
  const responses: Message[] = [];
  for await (const response of call) responses.push(response);
  return responses;
}

async function refusal(call: Promise<unknown>): Promise<{ code: number; reason: string; message: string }> {
  const error = await call.then(
    () => {
      throw new Error("it was accepted");
    },
    (failure: ServiceError) => failure,
  );
  const [packed] = error.metadata.get("prunebridge-error-bin");
  const detail = ErrorDetail.decode(packed as Buffer);
  return { code: error.code, reason: ErrorReason[detail.reason], message: detail.message };
}

const start = (work: Message, request_id: string = randomUUID()): Promise<Message> =>
  unary("OperationService", "Start")({ request_id, ...work });
const openWork = async (): Promise<Message> => ({
  open_model: { path: await writeCheckpoint(await temporaryFolder()), device: "cpu", dtype: "auto" },
});
const last = (events: readonly Message[]): Message => events.at(-1) ?? {};

const tokens = (ids: readonly bigint[], shape: readonly number[]): Message => ({
  info: { name: "input_ids", dtype: "DTYPE_I64", shape },
  offset: 0,
  data: Buffer.from(BigInt64Array.from(ids).buffer),
});

describe("the handshake", () => {
  it("agrees on a version and says what the shim is", async () => {
    const answer = await unary("SessionService", "Handshake")({ protocol_min: 1, protocol_max: 7, client: "stranger" });
    expect(answer).toMatchObject({
      protocol: 1,
      limits: { max_message_bytes: 16 << 20, chunk_bytes: 1 << 20, feed_depth: 4 },
      ranks: { world_size: 1 },
    });
    expect(answer["capabilities"]).toEqual(
      expect.arrayContaining(["open_model", "collect", "evaluate_loss", "forward", "score_model", "slice", "tokenize", "cut_model"]),
    );
    expect(answer["boot_id"]).toMatch(/^[0-9a-f-]{32,36}$/);
  });

  it("refuses a client of another age, and says both ranges", async () => {
    const refused = await refusal(unary("SessionService", "Handshake")({ protocol_min: 90, protocol_max: 91, client: "stranger" }));
    expect(refused).toMatchObject({ code: status.FAILED_PRECONDITION, reason: "ERROR_REASON_PROTOCOL_MISMATCH" });
    expect(refused.message).toMatch(/90.*91/);
  });
});

describe("an operation", () => {
  it("is the same one for the same request id", async () => {
    const [work, id] = [await openWork(), randomUUID()];
    const [first, second] = await Promise.all([start(work, id), start(work, id)]);
    expect(second).toEqual(first);
    await watch(first["operation_id"]);
    expect(await start(work, id)).toEqual(first);
  });

  it("numbers its events in their order and ends with its result", async () => {
    const { operation_id } = await start(await openWork());
    const events = await watch(operation_id);
    const numbered = events.filter(({ event }) => event !== undefined && event !== null);
    const numbers = numbered.map(({ seq }) => Number(seq));
    expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b));
    expect(numbers[0]).toBeGreaterThan(0);
    expect(last(events)).toMatchObject({
      event: "succeeded",
      succeeded: { result: "model_opened", model_opened: { device: "cpu", dtype: "float32" } },
    });
  });

  it("can be watched again from any event, also after its end", async () => {
    const { operation_id } = await start(await openWork());
    const events = await watch(operation_id);
    const final = Number(last(events)["seq"]);
    expect(await watch(operation_id, final - 1)).toEqual([last(events)]);
  });

  it("can be cancelled after its end without effect", async () => {
    const { operation_id } = await start(await openWork());
    const events = await watch(operation_id);
    await unary("OperationService", "Cancel")({ operation_id });
    expect(last(await watch(operation_id))).toEqual(last(events));
  });

  it("ends as cancelled while it waits for a feed", async () => {
    const opened = last(await watch((await start(await openWork()))["operation_id"]));
    const { model_id } = (opened["succeeded"] as { model_opened: Message }).model_opened;
    const { operation_id } = await start({ evaluate_loss: { model_id, feed_id: randomUUID() } });
    await unary("OperationService", "Cancel")({ operation_id });
    expect(last(await watch(operation_id))).toMatchObject({ event: "failed", failed: { reason: "ERROR_REASON_CANCELLED" } });
  });

  it.each([
    ["an unknown operation", "Watch", { operation_id: "none" }],
    ["an unknown operation", "Cancel", { operation_id: "none" }],
  ])("%s is refused by %s", async (_what, method, request) => {
    const refused = await refusal(method === "Watch" ? watch(request.operation_id) : unary("OperationService", method)(request));
    expect(refused).toMatchObject({ code: status.NOT_FOUND, reason: "ERROR_REASON_UNKNOWN_OPERATION" });
  });

  it.each([
    ["no work", {}],
    ["no request id", { request_id: "", close_model: { model_id: "x" } }],
  ])("with %s is refused", async (_what, request) => {
    expect(await refusal(unary("OperationService", "Start")({ request_id: randomUUID(), ...request }))).toMatchObject({
      code: status.INVALID_ARGUMENT,
      reason: "ERROR_REASON_INVALID_REQUEST",
    });
  });

  it("on a model that is not open fails by its reason", async () => {
    const { operation_id } = await start({ close_model: { model_id: "none" } });
    expect(last(await watch(operation_id))).toMatchObject({ event: "failed", failed: { reason: "ERROR_REASON_UNKNOWN_MODEL" } });
  });
});

describe("a feed", () => {
  it("that no operation reads is refused", async () => {
    const refused = await refusal(feed([{ feed_id: "nobody's", chunk: tokens([1n], [1, 1]) }, { batch_end: {} }]));
    expect(refused).toMatchObject({ code: status.INVALID_ARGUMENT, reason: "ERROR_REASON_INVALID_REQUEST" });
  });

  it.each([
    ["a chunk that leaves a gap", { ...tokens([1n, 2n], [1, 2]), offset: 8 }],
    ["more bytes than its shape has", tokens([1n, 2n, 3n], [1, 2])],
    ["a batch that ends early", tokens([1n], [1, 2])],
    ["no word of its end", tokens([1n, 2n], [1, 2])],
  ])("with %s is refused, and its operation fails", async (_what, chunk) => {
    const opened = last(await watch((await start(await openWork()))["operation_id"]));
    const { model_id } = (opened["succeeded"] as { model_opened: Message }).model_opened;
    const feed_id = randomUUID();
    const { operation_id } = await start({ evaluate_loss: { model_id, feed_id } });
    const refused = await refusal(feed([{ feed_id, chunk }, { batch_end: {} }]));
    expect(refused.reason).toMatch(/INVALID_REQUEST|BAD_TENSOR|FEED_LOST/);
    expect(last(await watch(operation_id))).toMatchObject({ event: "failed" });
  });

  it("of token ids gives a loss", async () => {
    const opened = last(await watch((await start(await openWork()))["operation_id"]));
    const { model_id } = (opened["succeeded"] as { model_opened: Message }).model_opened;
    const feed_id = randomUUID();
    const { operation_id } = await start({ evaluate_loss: { model_id, feed_id } });
    expect(await feed([{ feed_id, chunk: tokens([1n, 2n, 3n], [1, 3]) }, { batch_end: {} }, { feed_end: { batches: 1 } }])).toEqual([
      { part: "feed_taken", feed_taken: { batches: 1 } },
    ]);
    const { succeeded } = last(await watch(operation_id)) as { succeeded: { loss_evaluated: { loss: number; tokens: number } } };
    expect(succeeded.loss_evaluated.tokens).toBe(2);
    // Random weights know nothing: near the logarithm of the vocabulary.
    expect(succeeded.loss_evaluated.loss).toBeGreaterThan(2);
    expect(succeeded.loss_evaluated.loss).toBeLessThan(6);
  });

  it("answers the batches that ask, in their order, and then says that all were taken", async () => {
    const opened = last(await watch((await start(await openWork()))["operation_id"]));
    const { model_id } = (opened["succeeded"] as { model_opened: Message }).model_opened;
    const feed_id = randomUUID();
    const { operation_id } = await start({ forward: { model_id, feed_id } });
    const batch = { feed_id, chunk: tokens([1n, 2n, 3n], [1, 3]) };
    const returns = ["RETURNS_LAST_LOGITS", "RETURNS_UNSPECIFIED", "RETURNS_LOSS", "RETURNS_LOGITS"];
    const responses = await feed([
      ...returns.flatMap((wanted) => [batch, { batch_end: { returns: wanted } }]),
      { feed_end: { batches: returns.length } },
    ]);
    expect(responses).toMatchObject([
      { chunk: { info: { name: "logits", dtype: "DTYPE_F32", shape: [1, 50] } } },
      { answer_end: { batch: 0 } },
      { chunk: { info: { name: "loss", dtype: "DTYPE_F64", shape: [] } } },
      { answer_end: { batch: 2 } },
      { chunk: { info: { name: "logits", dtype: "DTYPE_F32", shape: [1, 3, 50] } } },
      { answer_end: { batch: 3 } },
      { feed_taken: { batches: 4 } },
    ]);
    expect(last(await watch(operation_id))).toMatchObject({ succeeded: { forwarded: { batches: 4 } } });
  });

  it("runs what a batch holds beside its token ids, and names what the model does not take", async () => {
    const opened = last(await watch((await start(await openWork()))["operation_id"]));
    const { model_id } = (opened["succeeded"] as { model_opened: Message }).model_opened;
    for (const [name, ended] of [
      ["attention_mask", { succeeded: { forwarded: { batches: 1 } } }],
      ["mask", { failed: { reason: "ERROR_REASON_BAD_DATA", message: expect.stringMatching(/mask/) } }],
    ] as const) {
      const feed_id = randomUUID();
      const { operation_id } = await start({ forward: { model_id, feed_id } });
      const ones = tokens([1n, 1n, 1n], [1, 3]);
      const mask = { ...ones, info: { ...(ones["info"] as Message), name } };
      const chunks = [{ feed_id, chunk: tokens([1n, 2n, 3n], [1, 3]) }, { chunk: mask }, { batch_end: {} }, { feed_end: { batches: 1 } }];
      await feed(chunks).catch(() => {});
      expect(last(await watch(operation_id))).toMatchObject(ended);
    }
  });

  it("takes the loss of what it answered, and its gradient", async () => {
    const opened = last(await watch((await start(await openWork()))["operation_id"]));
    const { model_id } = (opened["succeeded"] as { model_opened: Message }).model_opened;
    const feed_id = randomUUID();
    const masks = [{ key: "heads", module: "model.layers.1.self_attn.o_proj", side: "HOOK_SIDE_INPUT", units: 6 }];
    const { operation_id } = await start({ collect_gradients: { model_id, feed_id, masks, client: true } });
    const call = openFeed();
    call.write({ feed_id, chunk: tokens([1n, 2n, 3n], [1, 3]) });
    call.write({ batch_end: { returns: "RETURNS_OUTPUT" } });
    let loss = Number.NaN;
    for await (const { chunk, answer_end } of call) {
      if (chunk) {
        const { info, data } = chunk as { info: Message; data: Buffer };
        expect(info).toMatchObject({ name: "logits", dtype: "DTYPE_F32", shape: [1, 3, 50] });
        // The square mean of the logits, half of it: the gradient is the logits over their number.
        const logits = Float32Array.from({ length: 150 }, (_, index) => data.readFloatLE(4 * index));
        loss = logits.reduce((sum, logit) => sum + logit ** 2, 0) / 300;
        const [lossInfo, gradientInfo] = [
          { name: "loss", dtype: "DTYPE_F64", shape: [] },
          { name: "gradient.logits", dtype: "DTYPE_F32", shape: [1, 3, 50] },
        ];
        call.write({ chunk: { info: lossInfo, offset: 0, data: Buffer.from(Float64Array.of(loss).buffer) } });
        call.write({ chunk: { info: gradientInfo, offset: 0, data: Buffer.from(logits.map((logit) => logit / 150).buffer) } });
      } else if (answer_end) {
        call.write({ batch_end: {} });
        call.write({ feed_end: { batches: 2 } });
        call.end();
      }
    }
    const { succeeded } = last(await watch(operation_id)) as { succeeded: { gradients_collected: Message; tensors: Message[] } };
    expect(succeeded.gradients_collected).toMatchObject({ batches: 1, samples: 1, tokens: 3, loss });
    expect(succeeded.tensors).toEqual([{ name: "heads", dtype: "DTYPE_F32", shape: [6] }]);
  });

  it("is not needed by a Python function, which has to be allowed", async () => {
    const opened = last(await watch((await start(await openWork()))["operation_id"]));
    const { model_id } = (opened["succeeded"] as { model_opened: Message }).model_opened;
    for (const work of [
      { score_model: { model_id, score_func: "os:system" } },
      { collect: { model_id, forward_loop: "os:system" } },
      { collect: { model_id, data: { data_loader: "os:system" } } },
    ]) {
      const { operation_id } = await start(work);
      expect(last(await watch(operation_id))).toMatchObject({ failed: { reason: "ERROR_REASON_PYTHON_DENIED" } });
    }
  });
});

describe("a network", () => {
  const floats = (name: string, shape: readonly number[], values: readonly number[]): Message => ({
    info: { name, dtype: "DTYPE_F32", shape },
    offset: 0,
    data: Buffer.from(Float32Array.from(values).buffer),
  });
  const kept: Message = { info: { name: "kept", dtype: "DTYPE_I64", shape: [1] }, data: Buffer.from(BigInt64Array.of(1n).buffer) };

  async function run(kind: string, work: Message, batch: Message, returns = "RETURNS_UNSPECIFIED"): Promise<[Message, Message[]]> {
    const feed_id = randomUUID();
    const { operation_id } = await start({ [kind]: { ...work, feed_id } });
    const answers = await feed([{ feed_id, chunk: batch }, { batch_end: { returns } }, { feed_end: { batches: 1 } }]);
    const { succeeded } = last(await watch(operation_id));
    return [succeeded as Message, answers];
  }

  /** What it gives for [3, 4]: 7 in each hidden channel. */
  async function output(model_id: unknown): Promise<number> {
    const [, [answer = {}]] = await run("forward", { model_id }, floats("0", [1, 2], [3, 4]), "RETURNS_OUTPUT");
    const { info, data } = answer["chunk"] as { info: Message; data: Buffer };
    expect(info).toEqual({ name: "output", dtype: "DTYPE_F32", shape: [1, 1] });
    return data.readFloatLE();
  }

  it("is built, traced, tried as a child, cut and saved", async () => {
    const built = { entrypoint: "two_layers:build", kwargs_json: '{"hidden": 3}' };
    const opened = last(await watch((await start({ open_network: { built, device: "cpu", dtype: "auto" } }))["operation_id"]));
    const { model_id } = (opened["succeeded"] as { model_opened: Message }).model_opened;
    expect(await output(model_id)).toBe(0.5 * 7 + 8 * 7 + 0.5 * 7);

    const [{ network_traced, tensors }] = (await run("trace_network", { model_id }, floats("0", [1, 2], [3, 4]))) as unknown as [
      { network_traced: Record<string, Message[]>; tensors: Message[] },
    ];
    const hidden = { parts: [{ group: 0, begin: 0, end: 3, repeat: 1 }] };
    expect(network_traced["groups"]).toMatchObject([
      { outputs: [{ module: "0", kind: "nn.Linear", attribute: "out_features" }], channels: 3, fixed: false, sections: 1 },
      { outputs: [{ module: "2" }], fixed: true },
    ]);
    expect(network_traced["operations"]).toMatchObject([{ module: "0", axes: [{ parts: [{ size: 2 }] }, hidden] }, { module: "2" }]);
    expect(network_traced["layers"]?.[1]).toMatchObject({ module: "2", attributes: { in_features: hidden } });
    expect(tensors[0]).toEqual({ name: "importance.0", dtype: "DTYPE_F64", shape: [3] });

    const axes: Record<string, string[]> = { "0.weight": ["kept", ""], "0.bias": ["kept"], "2.weight": ["", "kept"] };
    const child = {
      model_id,
      tensors: network_traced["tensors"]?.map(({ info }) => {
        const { name } = info as { name: string };
        return { name, parts: [{ source: info, axes: axes[name] }] };
      }),
      modules: [
        { module: "0", attributes: { out_features: 1 } },
        { module: "2", attributes: { in_features: 1 } },
      ],
    };
    const [{ subnet_opened }] = (await run("open_subnet", child, kept)) as unknown as [{ subnet_opened: Message }];
    expect(await output(subnet_opened["model_id"])).toBe(56);
    expect(await output(model_id)).toBe(63);

    await watch((await start({ close_model: { model_id: subnet_opened["model_id"] } }))["operation_id"]);
    const [cut] = await run("cut_model", child, kept);
    expect(cut).toMatchObject({ model_cut: { parameters: 4 } });
    expect(await output(model_id)).toBe(56);
    const job_dir = join(await temporaryFolder(), "job");
    const saved = last(await watch((await start({ save_network: { model_id, job_dir } }))["operation_id"]));
    expect(saved["succeeded"]).toMatchObject({ sliced: { shards: [{ file: "model.safetensors" }] } });
    expect((await readFile(join(job_dir, "child/model.safetensors"))).subarray(-4)).toEqual(Buffer.from(Float32Array.of(8).buffer));
  });
});
