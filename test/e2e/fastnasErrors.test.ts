import { mkdirSync, rmSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Bridge, type LoadOptions, type NetworkModel, prune, python, type RunnableNetwork } from "../../src/index.js";
import { networkChild } from "../../src/policy/network/child.js";
import { temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";
import { FOURS, images, WITH_VISION } from "../fixtures/vision.js";

const INPUTS = images(2, 4);
const EVEN = [0, 2, 4, 6];
const HALF = { flops: "50%" };

let bridge: Bridge;
beforeAll(async () => {
  bridge = await Bridge.spawn(WITH_VISION);
});
afterAll(() => bridge?.close());

const load = (entrypoint = "vision:planted", kwargs: Record<string, unknown> = { kept: EVEN }): Promise<NetworkModel> =>
  bridge.load({ entrypoint, kwargs });

/** Fails where anything is scored. */
const unscored = (): never => {
  throw new Error("it was scored");
};

/** As a caller without types would call it. */
const pruneAny = prune as (...args: unknown[]) => ReturnType<typeof prune>;

interface Refused {
  readonly mode?: unknown;
  readonly constraints?: unknown;
  readonly dummyInput?: unknown;
  readonly config?: object;
}

describe("fastnas refuses, before anything is scored,", () => {
  it.each<[string, Refused, string, RegExp]>([
    ["no constraint", { constraints: {} }, "BAD_CONSTRAINTS", /exactly one constraint, and none/],
    ["two constraints", { constraints: { flops: "50%", params: 100 } }, "BAD_CONSTRAINTS", /flops and params are given/],
    ["sizes", { constraints: { export_config: {} } }, "BAD_CONSTRAINTS", /export_config/],
    ["a constraint that cannot be met", { constraints: { flops: "10%" } }, "BAD_CONSTRAINTS", /flops .* cannot be met: the smallest/],
    ["a missing scoreFunc", { config: {} }, "BAD_OPTION", /fastnas needs a scoreFunc/],
    ["a scoreFunc that is none", { config: { scoreFunc: 1 } }, "BAD_OPTION", /scoreFunc must be a function or python/],
    ["a function that is not allowed", { config: { scoreFunc: python("other:score") } }, "PYTHON_DENIED", /other:score is not allowed/],
    ["an unknown option", { config: { scoreFunc: unscored, topK: 3 } }, "BAD_OPTION", /topK/],
    [
      "two sources of data",
      { config: { scoreFunc: unscored, dataLoader: [], forwardLoop: unscored } },
      "BAD_OPTION",
      /excludes dataLoader/,
    ],
    ["a count of batches without any", { config: { scoreFunc: unscored, maxIterDataLoader: 3 } }, "BAD_OPTION", /without a dataLoader/],
    ["no dummy input", { dummyInput: null }, "BAD_OPTION", /dummyInput is missing/],
    ["a dummy input that is none", { dummyInput: "image" }, "BAD_OPTION", /dummyInput: 0 is the string image/],
    ["a dummy input that the network does not take", { dummyInput: images(1, 2).data }, "BAD_DATA", /does not run on the dummy input/],
    ["options of another mode", { mode: { fastnas: { skip_sorting: true } } }, "BAD_MODE", /skip_sorting/],
    [
      "a pattern that no module matches",
      { mode: { fastnas: { "nn.Conv2d": { "*": { channel_divisor: 4 }, mian: null } } } },
      "BAD_OPTION",
      /nn\.Conv2d "mian" matches none of its modules/,
    ],
    ["choices of which none is smaller", { mode: "fastnas" }, "BAD_OPTION", /no layer of this network can be cut/],
    ["the mode of decoders", { mode: "mcore_gpt_minitron" }, "BAD_MODE", /prunes a decoder/],
    [
      "a folder that cannot be written",
      { config: { scoreFunc: unscored, checkpoint: "/dev/null/x" } },
      "PATH_DENIED",
      /cannot be a folder/,
    ],
  ])("%s", async (_what, { mode = FOURS, constraints = HALF, dummyInput = INPUTS, config = { scoreFunc: unscored } }, code, says) => {
    await using network = await load();
    await expect(pruneAny(network, mode, constraints, dummyInput, config)).rejects.toMatchObject({
      code,
      detail: expect.stringMatching(says),
    });
  });

  it("a decoder", async () => {
    await using model = await bridge.open(await writeCheckpoint(await temporaryFolder()));
    await expect(pruneAny(model, "fastnas", HALF, INPUTS, { scoreFunc: unscored })).rejects.toMatchObject({ code: "BAD_MODE" });
  });

  it("a network whose channels cannot be followed", async () => {
    await using network = await load("vision:untraceable", {});
    await expect(prune(network, FOURS, HALF, INPUTS, { scoreFunc: unscored })).rejects.toMatchObject({
      code: "BAD_DATA",
      detail: expect.stringMatching(/depends on its parameters/),
    });
  });
});

describe("a score", () => {
  it("that is no number names the network that it is of", async () => {
    await using network = await load();
    let scored = 0;
    const nan = (): number => (++scored === 3 ? Number.NaN : -scored);
    await expect(prune(network, FOURS, HALF, INPUTS, { scoreFunc: nan })).rejects.toMatchObject({
      code: "BAD_OPTION",
      detail: expect.stringMatching(/scoring main\.out_channels 8: scoreFunc gave NaN/),
    });
    // The network is as it was, and can be pruned.
    await prune(network, FOURS, HALF, INPUTS, { scoreFunc: () => 1 });
  });

  it.each([
    ["is no number", "vision:nan", /scoring the whole network: .*nan/],
    ["fails", "vision:fail", /scoring the whole network: .*the labels are gone/],
  ])("of Python's that %s says so", async (_what, name, says) => {
    await using network = await load();
    await expect(prune(network, FOURS, HALF, INPUTS, { scoreFunc: python(name) })).rejects.toMatchObject({
      code: "PYTHON_FAILED",
      detail: expect.stringMatching(says),
    });
  });

  it("that throws fails as it does", async () => {
    await using network = await load();
    await expect(prune(network, FOURS, HALF, INPUTS, { scoreFunc: unscored })).rejects.toThrow(/^it was scored$/);
  });

  it("ends with its candidate", async () => {
    await using network = await load();
    const seen: RunnableNetwork[] = [];
    await prune(network, FOURS, HALF, INPUTS, { scoreFunc: (candidate) => seen.push(candidate) });
    await expect(seen[1]?.output(INPUTS)).rejects.toMatchObject({ code: "BAD_OPTION", detail: expect.stringMatching(/was closed/) });
  });

  it("is cancelled by the caller's signal", async () => {
    await using network = await load();
    const cancelling = new AbortController();
    const scoreFunc = (): number => {
      cancelling.abort();
      return 1;
    };
    await expect(prune(network, FOURS, HALF, INPUTS, { scoreFunc, signal: cancelling.signal })).rejects.toMatchObject({
      code: "CANCELLED",
    });
  });
});

describe("a network that is not pruned in the end", () => {
  /** Calls back when all is chosen, and nothing is cut yet. */
  const onceChosen =
    (call: () => void) =>
    (text: string): void =>
      text.includes("child") ? call() : undefined;

  it("is as it was where the caller's signal fires before the cut", async () => {
    await using network = await load();
    const cancelling = new AbortController();
    const config = { scoreFunc: () => 1, signal: cancelling.signal, verbose: onceChosen(() => cancelling.abort()) };
    await expect(prune(network, FOURS, HALF, INPUTS, config)).rejects.toMatchObject({ code: "CANCELLED" });
    await prune(network, FOURS, HALF, INPUTS, { scoreFunc: () => 1 });
  });

  it("is as it was where the checkpoint cannot be written any more", async () => {
    const checkpoint = await temporaryFolder();
    const state = join(checkpoint, "sensitivity.json");
    const block = (): void => {
      rmSync(state);
      mkdirSync(state);
    };
    await using network = await load();
    await expect(prune(network, FOURS, HALF, INPUTS, { scoreFunc: () => 1, checkpoint, verbose: onceChosen(block) })).rejects.toThrow();
    expect(network.pruned).toBeUndefined();
    await prune(network, FOURS, HALF, INPUTS, { scoreFunc: () => 1 });
  });

  it("has a view of it open", async () => {
    await using network = await load();
    await using view = await network.view(networkChild(await network.trace(INPUTS), []));
    await expect(prune(network, FOURS, HALF, INPUTS, { scoreFunc: unscored })).rejects.toMatchObject({
      code: "BAD_OPTION",
      detail: expect.stringMatching(/1 views of this network are open/),
    });
    await view.close();
  });
});

describe("a pruned network", () => {
  it("is neither pruned nor looked at again, and saved to where nothing is", async () => {
    const taken = await temporaryFolder();
    await writeFile(join(taken, "note"), "");
    await using network = await load();
    await expect(network.save(join(taken, "new"))).rejects.toMatchObject({ code: "BAD_PLAN" });
    await prune(network, FOURS, HALF, INPUTS, { scoreFunc: () => 1 });
    await expect(prune(network, FOURS, HALF, INPUTS, { scoreFunc: unscored })).rejects.toMatchObject({ code: "BAD_PLAN" });
    await expect(network.save(taken)).rejects.toMatchObject({ code: "TARGET_EXISTS" });
  });

  it("cannot be run once it was closed", async () => {
    const network = await load();
    await network.close();
    await network.close();
    await expect(network.output(INPUTS)).rejects.toMatchObject({ code: "BAD_OPTION", detail: expect.stringMatching(/was closed/) });
  });
});

describe("loading refuses", () => {
  it.each<[string, object, string, RegExp]>([
    ["neither a function nor a folder", {}, "BAD_OPTION", /entrypoint/],
    ["a function and a folder", { entrypoint: "vision:planted", checkpoint: "/x" }, "BAD_OPTION", /entrypoint/],
    ["a name of another form", { entrypoint: "vision.planted" }, "BAD_OPTION", /names no Python function/],
    ["a function that is not allowed", { entrypoint: "os:getcwd" }, "PYTHON_DENIED", /os:getcwd/],
    ["arguments that are no JSON", { entrypoint: "vision:planted", kwargs: { kept: () => 1 } }, "BAD_OPTION", /kwargs/],
    ["arguments that the function does not take", { entrypoint: "vision:planted", kwargs: { keep: [] } }, "PYTHON_FAILED", /keep/],
    ["what is no network", { entrypoint: "vision:not_a_network" }, "PYTHON_FAILED", /gave a dict/],
    ["weights that are missing", { entrypoint: "vision:planted", weights: "/nowhere.safetensors" }, "PATH_NOT_FOUND", /nowhere/],
    ["a folder that is missing", { checkpoint: "/nowhere" }, "PATH_NOT_FOUND", /nowhere/],
    ["an unknown dtype", { checkpoint: "/nowhere", dtype: "int4" }, "BAD_OPTION", /dtype/],
  ])("%s", async (_what, options, code, says) => {
    await expect(bridge.load(options as LoadOptions)).rejects.toMatchObject({ code, detail: expect.stringMatching(says) });
  });

  it("a folder with two accounts of its weights, or with none", async () => {
    const dir = await temporaryFolder();
    await mkdir(join(dir, "empty"));
    await expect(bridge.load({ checkpoint: join(dir, "empty") })).rejects.toMatchObject({ code: "NOT_A_CHECKPOINT" });
    for (const name of ["config.json", "architecture.json"]) await writeFile(join(dir, name), "{}");
    await expect(bridge.load({ checkpoint: dir })).rejects.toMatchObject({ code: "BAD_CONFIG", detail: expect.stringMatching(/has both/) });
  });
});
