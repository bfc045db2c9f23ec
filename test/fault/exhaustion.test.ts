import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { type Model, plan, prune, python, verify } from "../../src/index.js";
import { ShimProcess } from "../../src/shim/process.js";
import type { ShimSession } from "../../src/shim/session.js";
import { BATCHES, WITH_PYTHON } from "../fixtures/calibration.js";
import { temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";
import { failureOf } from "../fixtures/failures.js";
import { sliceIn } from "../fixtures/planted.js";
import { cutterOver, modelOver, openSession, tokenEnvironment } from "../fixtures/sessions.js";

const FIXTURES = join(dirname(fileURLToPath(import.meta.url)), "..", "fixtures");
const BOUND_MS = 5_000;
// Of util-linux.
const PRLIMIT = await execa("prlimit", ["--version"], { reject: false });

let shim: ShimProcess;
let session: ShimSession;
beforeAll(async () => {
  shim = await ShimProcess.start({ ...WITH_PYTHON, allowPython: ["faults"] });
  session = await openSession(shim);
});
afterAll(async () => {
  session?.close();
  await shim?.stop();
});

const open = async (folder?: string): Promise<Model> => modelOver(session, folder ?? (await writeCheckpoint(await temporaryFolder())));

/** Lets the shim write no file beyond a size, as a full disk would; gives what lifts that again, at the latest the test's end. */
async function limitFiles(bytes: number): Promise<() => Promise<void>> {
  const setLimit = async (limit: string): Promise<void> => void (await execa("prlimit", ["--pid", String(shim.pid), `--fsize=${limit}:`]));
  const lift = (): Promise<void> => setLimit("unlimited");
  onTestFinished(lift);
  await setLimit(String(bytes));
  return lift;
}

describe("memory that is exhausted", () => {
  it.each([
    ["a device's", "faults:device_out_of_memory", /tried to allocate 2 GiB/],
    ["this machine's", "faults:allocator_out_of_memory", /DefaultCPUAllocator/],
  ])("%s is told, what the pass held is given back, and the model runs on", async (_whose, name, says) => {
    await using model = await open();
    const { error, ms } = await failureOf(model.load().then(() => model.score(python(name))));
    expect(error).toMatchObject({ code: "GPU_OOM", detail: expect.stringMatching(says) });
    expect(ms).toBeLessThan(4 * BOUND_MS);
    expect(await model.score(python("faults:activations_held"))).toBe(0);
    expect(await model.loss(BATCHES)).toBeGreaterThan(0);
  });
});

describe("a model that is closed while a cut of it fails", () => {
  it("is closed, and leaves none in the shim", async () => {
    await using witness = await open();
    const model = await open();
    await model.score(python("faults:out_of_memory_in_the_next_cut"));
    const before = await witness.score(python("faults:open_models"));
    model.prune(plan(model.parent, { ffn_hidden_size: 16 }, "position"));
    const failed = failureOf(model.loss(BATCHES));
    await model.close();
    expect((await failed).error).toMatchObject({ code: "GPU_OOM" });
    expect(await witness.score(python("faults:open_models"))).toBe(before - 1);
  });
});

describe("an error of 100 kB", () => {
  it.each([
    ["a function's", "faults:fail_at_length", "PYTHON_FAILED"],
    ["the device's", "faults:device_out_of_memory_at_length", "GPU_OOM"],
  ])("%s arrives, cut to what the wire carries", async (_whose, name, code) => {
    await using model = await open();
    await model.load();
    const { error, ms } = await failureOf(model.score(python(name)));
    expect(error).toMatchObject({ code, detail: expect.stringMatching(/x{500}/) });
    expect(Buffer.byteLength(error.detail)).toBeLessThan(4096);
    expect(ms).toBeLessThan(BOUND_MS);
    expect(await model.loss(BATCHES)).toBeGreaterThan(0);
  });
});

describe.skipIf(PRLIMIT.failed)("a disk that is full", () => {
  const sized = (ffn_hidden_size: number) => ({ export_config: { ffn_hidden_size } });
  const place = async () => ({ folder: await writeCheckpoint(await temporaryFolder()), checkpoint: join(await temporaryFolder(), "kept") });
  const pruneWithoutRoom = async (...args: string[]): Promise<unknown> => {
    const script = join(FIXTURES, "pruneOnFullDisk.ts");
    return JSON.parse(
      (await execa(process.execPath, ["--import", "tsx", script, shim.address, ...args], { env: tokenEnvironment(shim) })).stdout,
    );
  };

  it("under the scores leaves none, and is no matter once there is room", async () => {
    const { folder, checkpoint } = await place();
    const failure = await pruneWithoutRoom(folder, checkpoint, "16");
    expect(failure).toEqual({ code: "STORAGE_FULL", detail: expect.stringContaining(checkpoint), pruned: false });
    expect(await readdir(checkpoint)).toEqual([]);
    await using model = await open(folder);
    await prune(model, "mcore_gpt_minitron", sized(16), null, { dataLoader: BATCHES, checkpoint });
    expect(await readdir(checkpoint)).toEqual(["plan.json", "scores.safetensors", "search.json"]);
  });

  it("under the plan leaves what is stored, and the model, as they are", async () => {
    const { folder, checkpoint } = await place();
    await using model = await open(folder);
    await prune(model, "mcore_gpt_minitron", sized(16), null, { dataLoader: BATCHES, checkpoint });
    const stored = (): Promise<Buffer[]> =>
      Promise.all(["plan.json", "scores.safetensors"].map((name) => readFile(join(checkpoint, name))));
    const before = await stored();
    const failure = await pruneWithoutRoom(folder, checkpoint, "8");
    expect(failure).toEqual({ code: "STORAGE_FULL", detail: expect.stringContaining("plan.json"), pruned: false });
    expect(await stored()).toEqual(before);
  });

  it("under the child's weights leaves no child, and is no matter once there is room", async () => {
    const folder = await temporaryFolder();
    const lift = await limitFiles(4096);
    const { error } = await failureOf(sliceIn(folder, cutterOver(session)));
    expect(error).toMatchObject({ code: "STORAGE_FULL", detail: expect.stringMatching(/File too large/) });
    expect(existsSync(join(folder, "child"))).toBe(false);
    await lift();
    await sliceIn(folder, cutterOver(session));
    await verify(join(folder, "child"));
  });
});
