import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { connect, type Socket } from "node:net";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { type Model, python } from "../../src/index.js";
import { Operations } from "../../src/shim/operations.js";
import { TIMEOUTS } from "../../src/shim/options.js";
import { ShimProcess } from "../../src/shim/process.js";
import { connect as connectShim, disconnect } from "../../src/shim/rpc.js";
import type { ShimSession } from "../../src/shim/session.js";
import { BATCHES, WITH_PYTHON } from "../fixtures/calibration.js";
import { mulberry32, temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";
import { failureOf } from "../fixtures/failures.js";
import { FlakyProxy } from "../fixtures/flakyProxy.js";
import { modelOver, openSession, tokenEnvironment } from "../fixtures/sessions.js";

const FIXTURES = join(dirname(fileURLToPath(import.meta.url)), "..", "fixtures");
const BOUND_MS = 5_000;
const FOR_SECONDS = { forwardLoop: python("faults:run_for_seconds") };

let shim: ShimProcess;
beforeAll(async () => {
  shim = await ShimProcess.start({ ...WITH_PYTHON, allowPython: ["faults"] });
});
afterAll(() => shim?.stop());

/** A session with the shim and a model over it, until the test ends. */
async function client(address: string = shim.address): Promise<{ session: ShimSession; model: Model }> {
  const session = await openSession(shim, { address });
  onTestFinished(() => session.close());
  const model = await modelOver(session, await writeCheckpoint(await temporaryFolder()));
  onTestFinished(() => model.close());
  await model.load();
  return { session, model };
}

async function clientOverProxy(): Promise<{ model: Model; proxy: FlakyProxy }> {
  const proxy = await FlakyProxy.to(shim.address);
  return { proxy, ...(await client(proxy.address)) };
}

async function* endless(onBatch: (n: number) => void): AsyncGenerator<readonly (readonly number[])[]> {
  for (let n = 1; ; n++) {
    onBatch(n);
    yield BATCHES[0] ?? [];
  }
}

describe("a connection that breaks", () => {
  it("under a watch loses and repeats nothing of an operation that needs no feed", async () => {
    const { model, proxy } = await clientOverProxy();
    const done: number[] = [];
    const onProgress = (progress: { done: number }): void => {
      done.push(progress.done);
      if (done.length % 4 === 0) proxy.cut();
    };
    expect(await model.collect([], FOR_SECONDS, { onProgress })).toMatchObject({ batches: 40 });
    expect(proxy.connections).toBeGreaterThan(3);
    expect(done).toEqual([...new Set(done)].sort((a, b) => a - b));
  });

  it("before a start is answered starts nothing twice", async () => {
    const { model, proxy } = await clientOverProxy();
    const before = await model.score(python("faults:count_calls"));
    proxy.cutAtAnswer();
    expect(await model.score(python("faults:count_calls"))).toBe(before + 1);
    expect(proxy.connections).toBe(2);
  });

  it("under a feed fails the operation by FEED_LOST, and the session goes on", async () => {
    const { model, proxy } = await clientOverProxy();
    let cut = 0;
    const batches = endless((n) => {
      if (n !== 20) return;
      cut = performance.now();
      proxy.cut();
    });
    const { error } = await failureOf(model.loss(batches));
    expect(error).toMatchObject({ code: "FEED_LOST", detail: expect.stringMatching(/the connection broke/) });
    expect(performance.now() - cut).toBeLessThan(BOUND_MS);
    expect(await model.loss(BATCHES)).toBeGreaterThan(0);
  });

  it("under a result has it read again", async () => {
    const proxy = await FlakyProxy.to(shim.address);
    const { model } = await client();
    const stubs = connectShim({ ...shim.endpoint, target: proxy.address }, TIMEOUTS);
    onTestFinished(() => disconnect(stubs));
    const operations = new Operations(stubs, TIMEOUTS);
    const hooks = [{ key: "layer", module: "model.layers.1", side: 0, reduction: 2 }];
    const python = { $case: "forwardLoop", value: "faults:run_for_seconds" } as const;
    const abandoned = new AbortController().signal;
    const value = { modelId: await model["modelId"]({}), feedId: "", hooks, python };
    const { operationId } = await operations.run({ work: { $case: "collect", value }, feed: undefined, abandoned }, {});
    proxy.cutAtAnswer();
    expect([...(await operations.readResult(operationId, abandoned)).keys()]).toEqual(["layer"]);
    // The first is for what carries no tensors.
    expect(proxy.connections).toBe(3);
  });
});

describe("a client that does not keep to the protocol", () => {
  const path = (): string => shim.address.replace("unix:", "");
  const knock = (): Socket => {
    const socket = connect(path()).on("error", () => {});
    onTestFinished(() => void socket.destroy());
    return socket;
  };
  const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

  it.each([
    ["sends garbage", 20, (random: () => number) => Buffer.from(Array.from({ length: 65_536 }, () => 256 * random()))],
    ["sends garbage after a preface", 20, (random: () => number) => PREFACE + String(random())],
    ["breaks off within the preface", 20, () => PREFACE.slice(0, 10)],
    ["says nothing", 200, () => ""],
  ])("and %s disturbs no other", async (_how, count, bytes) => {
    const { model } = await client();
    const random = mulberry32(3);
    const running = model.loss(BATCHES);
    for (let n = 0; n < count; n++) knock().write(bytes(random));
    expect(await running).toBeGreaterThan(0);
    (await openSession(shim)).close();
  });

  it("and pings without end is told to go away", async () => {
    const { model } = await client();
    const http2 = connectHttp2("http://localhost", { createConnection: () => connect(path()) });
    onTestFinished(() => http2.destroy());
    http2.on("error", () => {});
    await once(http2, "remoteSettings");
    const goneAway = once(http2, "goaway");
    const pings = setInterval(() => !http2.destroyed && http2.ping(() => {}), 20);
    onTestFinished(() => clearInterval(pings));
    const [code, , reason] = (await goneAway) as [number, number, Buffer];
    expect({ code, reason: String(reason) }).toEqual({ code: 11, reason: "too_many_pings" }); // ENHANCE_YOUR_CALM
    expect(await model.loss(BATCHES)).toBeGreaterThan(0);
  });

  it("and asks for more than a message may hold learns so at once", async () => {
    const { session, model } = await client();
    const value = { path: "x".repeat(17 << 20), device: "cpu", dtype: "auto", unreadTensors: [] };
    const { error, ms } = await failureOf(session.run({ $case: "openModel", value }));
    expect(error).toMatchObject({ code: "LIMIT_EXCEEDED", detail: expect.stringMatching(/16777216/) });
    expect(ms).toBeLessThan(BOUND_MS);
    expect(await model.loss(BATCHES)).toBeGreaterThan(0);
  });
});

describe("two clients of one shim", () => {
  it("do not touch each other's operations, by a cancel nor by going away", async () => {
    const [one, other] = [await client(), await client()];
    const expected = await one.model.loss(BATCHES);
    const cancel = new AbortController();
    const running = one.model.collect([], FOR_SECONDS);
    const queued = other.model.loss(BATCHES);
    const cancelled = failureOf(other.model.loss(BATCHES, { signal: cancel.signal }));
    cancel.abort();
    expect((await cancelled).error).toMatchObject({ code: "CANCELLED" });
    expect(await running).toMatchObject({ batches: 40 });
    expect(await queued).toBe(expected);
    const abandoned = failureOf(other.model.collect([], FOR_SECONDS, { onProgress: () => other.session.close() }));
    expect((await abandoned).error).toMatchObject({ code: "SHIM_SHUTTING_DOWN" });
    expect(await one.model.loss(BATCHES)).toBe(expected);
  });

  it("may be processes of their own", async () => {
    const folder = await writeCheckpoint(await temporaryFolder());
    const run = (): Promise<{ stdout: string }> =>
      execa(process.execPath, ["--import", "tsx", join(FIXTURES, "lossesOver.ts"), shim.address, folder, "20"], {
        env: tokenEnvironment(shim),
      });
    const [one, other] = await Promise.all([run(), run()]);
    expect(other.stdout).toBe(one.stdout);
    expect(new Set(JSON.parse(one.stdout) as number[]).size).toBe(1);
  });
});
