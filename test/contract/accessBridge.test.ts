// A bridge to a shim that others use too: what it leaves there, and what it says of one that was started anew.
import { access, mkdir, mkdtemp, readFile, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from "vitest";
import { withBridge } from "../../src/cli/run.js";
import { type Batch, Bridge, PruneError, prune, tokenBatch } from "../../src/index.js";
import { parseEndpoint } from "../../src/shim/endpoint.js";
import { openModel } from "../../src/shim/modelWork.js";
import { ShimProcess } from "../../src/shim/process.js";
import { evaluateLoss } from "../../src/shim/runWork.js";
import { ShimSession } from "../../src/shim/session.js";
import { temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";
import { runCli } from "../fixtures/cli.js";
import { failureOf } from "../fixtures/failures.js";
import { FlakyProxy } from "../fixtures/flakyProxy.js";
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
    const work = { path: parent, device: "cpu", dtype: "auto", unreadTensors: [] };
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
    const model = await bridge.open(parent);
    let outcome = Promise.resolve("not begun");
    await new Promise<void>((begun) => {
      outcome = codeOf(model.load({ onProgress: () => begun() }));
    });
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

/** A shim at an address of its own. */
async function startAt(folder: string): Promise<Listener> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  return startListener(root, [], `unix:${folder}/s`);
}

// Two at a time: each mostly waits.
describe.concurrent("a shim that ends", () => {
  it("and is started anew is told from one that never ended", async ({ onTestFinished }) => {
    const start = (): Promise<Listener> => startAt(join(root, "anew"));
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
    const first = await startAt(join(root, "away"));
    const bridge = await attach(first);
    const model = await bridge.open(parent);
    await model.load();
    await first.stop("SIGKILL");
    expect(await codeOf(model.loss([batch()]))).toBe("SHIM_UNREACHABLE");
    await expect(bridge.close()).rejects.toMatchObject({ code: "SHIM_UNREACHABLE", detail: expect.stringMatching(/may still be open/) });
  });
});

describe("a shim that does not answer", () => {
  const timeouts = { unary: 1_000, restartNews: 500, detach: 500 };
  const SLACK_MS = 2_000;

  /** A call fails within its limit and that of asking after a restart; closing within these and twice that for what it had. */
  async function stalls(address: string, stall: () => void): Promise<void> {
    const bridge = await Bridge.attach(address, { token: TOKENS.change, timeouts });
    const model = await bridge.open(parent);
    await model.load();
    stall();
    const call = await failureOf(model.loss([batch()]));
    expect(call.error.code).toBe("SHIM_STALLED");
    expect(call.ms).toBeLessThan(timeouts.unary + timeouts.restartNews + SLACK_MS);
    const close = await failureOf(bridge.close());
    expect(close.error).toMatchObject({ code: "SHIM_STALLED", detail: expect.stringMatching(/may still be open/) });
    expect(close.ms).toBeLessThan(timeouts.unary + timeouts.restartNews + 2 * timeouts.detach + SLACK_MS);
    await bridge[Symbol.asyncDispose]();
  }

  it("since it is stopped is told as stalled", async () => {
    const stopped = await startListener(root);
    onTestFinished(() => void stopped.stop("SIGKILL"));
    await stalls(stopped.address, () => process.kill(stopped.pid, "SIGSTOP"));
  });

  it("since it is cut off is told as stalled", async () => {
    const cut = await startAt(join(root, "cut"));
    onTestFinished(() => void cut.stop());
    const proxy = await FlakyProxy.to(cut.address);
    await stalls(proxy.address, () => proxy.freeze());
  });
});

describe("a shim that vanishes at the end", () => {
  it("leaves a failing block its own error", async () => {
    const vanishing = await startListener(root);
    const block = async (): Promise<void> => {
      await using bridge = await attach(vanishing);
      await (await bridge.open(parent)).load();
      await vanishing.stop("SIGKILL");
      throw new PruneError("BAD_DATA", "the block's own");
    };
    await expect(block()).rejects.toMatchObject({ code: "BAD_DATA", detail: "the block's own" });
  });

  it("costs a command nothing but a warning", async () => {
    const vanishing = await startListener(root);
    const flags = { attach: vanishing.address, tokenFile: join(root, "token-file") };
    const warned = vi.spyOn(process.stderr, "write").mockReturnValue(true);
    onTestFinished(() => warned.mockRestore());
    const work = withBridge(flags, async (bridge) => {
      await (await bridge.open(parent)).load();
      await vanishing.stop("SIGKILL");
      return "done";
    });
    expect(await work).toBe("done");
    expect(warned.mock.calls.join("")).toMatch(/^warning: \[SHIM_UNREACHABLE\] .*may still be open/);
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
    ["another machine without TLS", ["--attach", "example.org:7070", "--token-file", "x"], /give tls \(--tls\)/],
    ["no token", ["--attach", "localhost:7070"], /tokenFile \(--token-file\)/],
    ["a token file that is not there", ["--attach", "localhost:7070", "--token-file", "/no/such/file"], /no\/such\/file/],
    [
      "a certificate without its key",
      ["--attach", "localhost:7070", "--token-file", "TOKEN", "--tls-cert", "x"],
      /tls\.cert \(--tls-cert\) and .* go together/,
    ],
    [
      "authorities that are none, for a name",
      ["--attach", "localhost:7070", "--token-file", "TOKEN", "--tls-ca", "TOKEN", "--tls-server-name", "x"],
      /tls\.ca \(--tls-ca\): .* is no PEM file/,
    ],
  ])("refuses %s", async (_what, flags, says) => {
    const { exitCode, stderr } = await runCli(args(...flags.map((flag) => (flag === "TOKEN" ? join(root, "token-file") : flag))));
    expect(exitCode).toBe(2);
    expect(stderr).toMatch(says);
  });
});
