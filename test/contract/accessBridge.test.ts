// A bridge to a shim that others use too: what it leaves there, and what it says of one that was started anew.
import { access, mkdir, mkdtemp, readFile, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { type Batch, Bridge, PruneError, prune, tokenBatch } from "../../src/index.js";
import { parseEndpoint } from "../../src/shim/endpoint.js";
import { openModel } from "../../src/shim/modelWork.js";
import { ShimProcess } from "../../src/shim/process.js";
import { evaluateLoss } from "../../src/shim/runWork.js";
import { ShimSession } from "../../src/shim/session.js";
import { temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";
import { runCli } from "../fixtures/cli.js";
import { type Listener, startListener, TOKENS } from "../fixtures/listeners.js";

let root: string;
let parent: string;
let listener: Listener;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "prunebridge-test-"));
  parent = await writeCheckpoint(join(root, "parent"));
  listener = await startListener(root);
});
afterAll(async () => {
  await listener?.stop();
  await rm(root, { recursive: true, force: true });
});

const batch = (): Batch =>
  tokenBatch(
    BigInt64Array.from({ length: 16 }, (_, i) => BigInt(i)),
    2,
  );
const attach = ({ address }: Listener, token: string = TOKENS.change): Promise<Bridge> => Bridge.attach(address, { token });
const codeOf = async (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "it succeeded",
    (error: unknown) => (error instanceof PruneError ? error.code : String(error)),
  );

describe("an attached bridge", () => {
  it("prunes and saves as one to a shim of its own", async () => {
    await using bridge = await attach(listener);
    const model = await bridge.open(parent);
    const { subnet } = await prune(model, "mcore_gpt_minitron", { export_config: { ffn_hidden_size: 16 } }, null, {
      dataLoader: [batch()],
    });
    await subnet.save(join(root, "child"));
    expect(await subnet.loss([batch()])).toBeGreaterThan(0);
    await access(join(root, "child", "model.safetensors"));
  });

  it("closes its own models and leaves the shim and others' models be", async () => {
    const endpoint = await parseEndpoint(listener.address, { token: TOKENS.change });
    const [staying, leaving] = await Promise.all([ShimSession.attach(endpoint, "stays"), ShimSession.attach(endpoint, "leaves")]);
    const work = { path: parent, device: "cpu", dtype: "auto" };
    const [kept, closed] = [await openModel(staying, work, {}), await openModel(leaving, work, {})];
    await leaving.detach();
    expect(await evaluateLoss(staying, kept, [batch()], {})).toBeGreaterThan(0);
    await expect(evaluateLoss(staying, closed, [batch()], {})).rejects.toThrow(`no model '${closed}' is open`);
    await staying.detach();
  });

  it("is of no more use once it is closed, which its models need not be told", async () => {
    const bridge = await attach(listener);
    const model = await bridge.open(parent);
    await model.load();
    await Promise.all([bridge.close(), bridge.close()]);
    await expect(model.loss([batch()])).rejects.toMatchObject({ code: "SHIM_SHUTTING_DOWN", detail: expect.stringMatching(/was closed/) });
    await model.close();
  });

  it("closes a model whose loading it did not wait for", async () => {
    const bridge = await attach(listener);
    const loading = bridge.open(parent).then((model) => model.load());
    const outcome = codeOf(loading);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await bridge.close();
    expect(["CANCELLED", "it succeeded"]).toContain(await outcome);
  });

  it("of a reader measures, and neither cuts a model nor a checkpoint", async () => {
    await using bridge = await attach(listener, TOKENS.read);
    const model = await bridge.open(parent);
    expect(await model.loss([batch()])).toBeGreaterThan(0);
    const config = { dataLoader: [batch()] };
    const { subnet } = await prune(model, "mcore_gpt_minitron", { export_config: { ffn_hidden_size: 16 } }, null, config);
    expect(await codeOf(subnet.loss([batch()]))).toBe("RIGHT_DENIED");
    expect(await codeOf(subnet.save(join(root, "denied")))).toBe("RIGHT_DENIED");
    expect(await codeOf(access(join(root, "denied")))).toMatch(/ENOENT/);
  });

  it("is kept to the shim's roots, whatever the way out", async () => {
    await using bridge = await attach(listener);
    const outside = await writeCheckpoint(await temporaryFolder());
    const way = join(root, "way-out");
    await symlink(outside, way);
    onTestFinished(() => rm(way));
    for (const path of [outside, way, `${root}/../${outside.split("/").at(-1)}`]) {
      expect(await codeOf((await bridge.open(path)).load())).toBe("PATH_DENIED");
    }
    const model = await bridge.open(parent);
    await prune(model, "mcore_gpt_minitron", { export_config: { ffn_hidden_size: 16 } }, null, { dataLoader: [batch()] });
    expect(await codeOf(model.save(join(outside, "child")))).toBe("PATH_DENIED");
  });
});

it("the token of a shim of its own is nowhere to be read", async () => {
  let log = "";
  const shim = await ShimProcess.start({
    onLog: (text) => {
      log += text;
    },
  });
  const token = shim.endpoint.token.reveal();
  const seen = ["cmdline", "environ"].map((name) => readFile(`/proc/${shim.pid}/${name}`, "utf8"));
  const shown = [...(await Promise.all(seen)), inspect(shim, { depth: 9, showHidden: true }), JSON.stringify(shim)];
  await shim.stop();
  for (const text of [...shown, log]) expect(text).not.toContain(token);
  expect(log).toMatch(/serves unix:/);
});

it("a shim of its own keeps to the roots that it was given", async () => {
  await using bridge = await Bridge.spawn({ roots: [root] });
  await (await bridge.open(parent)).load();
  const outside = await bridge.open(await writeCheckpoint(await temporaryFolder()));
  expect(await codeOf(outside.load())).toBe("PATH_DENIED");
});

describe("a shim that ends", () => {
  let folder: string;
  beforeEach(async () => {
    folder = join(root, `s${Math.random().toString(36).slice(2)}`);
    await mkdir(folder, { mode: 0o700 });
  });
  const start = (): Promise<Listener> => startListener(root, [], `unix:${folder}/s`);

  it("and is started anew is told from one that never ended", async () => {
    const first = await start();
    const bridge = await attach(first);
    const model = await bridge.open(parent);
    expect(await model.loss([batch()])).toBeGreaterThan(0);
    await first.stop();
    const second = await start();
    onTestFinished(() => void second.stop());
    expect(second.bootId).not.toBe(first.bootId);
    await expect(model.loss([batch()])).rejects.toMatchObject({ code: "SHIM_RESTARTED", hint: expect.stringMatching(/attach/) });
    await bridge.close();
    await using again = await attach(second);
    expect(await (await again.open(parent)).loss([batch()])).toBeGreaterThan(0);
  });

  it("and stays away is unreachable, also for a bridge that closes", async () => {
    const first = await start();
    const bridge = await attach(first);
    const model = await bridge.open(parent);
    await model.load();
    await first.stop("SIGKILL");
    expect(await codeOf(model.loss([batch()]))).toBe("SHIM_UNREACHABLE");
    await expect(bridge.close()).rejects.toMatchObject({ code: "SHIM_UNREACHABLE", detail: expect.stringMatching(/may still be open/) });
  });
});

describe("the command line", () => {
  const args = (...flags: string[]): string[] => ["verify", parent, "--load", "--json", ...flags];

  it("runs on the shim that it is told of", async () => {
    const flags = ["--attach", listener.address, "--token-file", join(root, "token-file")];
    const { exitCode, json } = await runCli(args(...flags), { PRUNEBRIDGE_PYTHON: "/no/python/is/needed" });
    expect({ exitCode, loads: json["loads"] }).toEqual({ exitCode: 0, loads: true });
  });

  it("refuses a shim where none is needed", async () => {
    const { exitCode, stderr } = await runCli(["verify", parent, "--attach", listener.address]);
    expect(exitCode).toBe(2);
    expect(stderr).toMatch(/needs no shim/);
  });

  it.each([
    ["a token without a shim", ["--token-file", "x"], /--attach/],
    ["another machine without TLS", ["--attach", "example.org:7070", "--token-file", "x"], /in the clear/],
    ["no token", ["--attach", "localhost:7070"], /needs a token/],
    ["a token file that is not there", ["--attach", "localhost:7070", "--token-file", "/no/such/file"], /no\/such\/file/],
    ["a certificate without its key", ["--attach", "localhost:7070", "--token-file", "TOKEN", "--tls-cert", "x"], /go together/],
  ])("refuses %s", async (_what, flags, says) => {
    const { exitCode, stderr } = await runCli(args(...flags.map((flag) => (flag === "TOKEN" ? join(root, "token-file") : flag))));
    expect(exitCode).toBe(2);
    expect(stderr).toMatch(says);
  });
});
