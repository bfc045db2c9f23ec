import { closeSync, constants, openSync } from "node:fs";
import { mkdir, open, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { execa } from "execa";
import { afterEach, describe, expect, it } from "vitest";
import { checkShard, readManifest } from "../../src/checkpoint/manifest.js";
import { readHeader } from "../../src/checkpoint/safetensors.js";
import { readSearchState } from "../../src/checkpoint/searchState.js";
import { readExportConfig } from "../../src/cli/options.js";
import { readCalibrationData, readParent, readPlanFile, readScoreFile, readWeightedParent } from "../../src/index.js";
import { temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";
import { startOfFile } from "./headers.js";
import { outcomeOfReading } from "./outcome.js";

const SHAPE = { seqLength: 8, samples: 8, batchSize: 1 };
const cleanups: (() => Promise<unknown>)[] = [];
afterEach(() => Promise.all(cleanups.splice(0).map((clean) => clean())));

/** What can stand at a path where a file is meant. */
const KINDS: Readonly<Record<string, (path: string) => Promise<unknown>>> = {
  nothing: async () => {},
  "an empty file": (path) => writeFile(path, ""),
  "a folder": (path) => mkdir(path),
  "a FIFO that nobody writes to": makeFifo,
  "a socket": listen,
  "a device without end": (path) => symlink("/dev/zero", path),
  "a device without content": (path) => symlink("/dev/null", path),
  "a link to nothing": (path) => symlink("nowhere", path),
  "a link to itself": (path) => symlink(path, path),
  "a file of the system that states no size and has no end": (path) => symlink("/proc/self/pagemap", path),
  "a terabyte of zeros": (path) => sparse(path, 2 ** 40),
  "text in another encoding": (path) => writeFile(path, Buffer.from('{"text": "caf\xe9"}', "latin1")),
};

/** What reads files that users name, and files in folders that they name. */
const READERS: Readonly<Record<string, (path: string) => Promise<unknown>>> = {
  "a bare config.json": readParent,
  "a plan": readPlanFile,
  "a score file": readScoreFile,
  "a header": readHeader,
  "tokens.safetensors": (path) => readCalibrationData(path, 50, SHAPE),
  "lines.jsonl": (path) => readCalibrationData(path, 50, SHAPE),
  "text.txt": (path) => readCalibrationData(path, 50, SHAPE),
  "sizes.json": readExportConfig,
  "prune_manifest.json": (path) => readManifest(join(path, "..")),
};

describe.each(Object.entries(KINDS))("%s", (_kind, make) => {
  it.each(Object.entries(READERS))("is refused as %s", async (name, read) => {
    const path = join(await temporaryFolder(), name);
    await make(path);
    expect((await outcomeOfReading(() => read(path))).refused).toBeDefined();
  });

  it.each(["config.json", "model.safetensors", "model.safetensors.index.json"])(
    "is refused, or passed over, as %s of a checkpoint",
    async (name) => {
      const dir = await writeCheckpoint(join(await temporaryFolder(), "parent"));
      await rm(join(dir, name), { force: true });
      await make(join(dir, name));
      const { refused } = await outcomeOfReading(() => readWeightedParent(dir));
      if (name !== "model.safetensors.index.json") expect(refused).toBeDefined();
    },
  );

  it("is refused, or passed over, as a search state", async () => {
    const path = join(await temporaryFolder(), "search.json");
    await make(path);
    const { value } = await outcomeOfReading(() => readSearchState(path, "sha256:1"));
    expect(value?.scored ?? []).toEqual([]);
  });
});

describe("paths", () => {
  it.each([
    ["a NUL", "a\0b"],
    ["too many characters", "x".repeat(5000)],
    ["nothing", ""],
  ])("with %s are refused", async (_what, name) => {
    for (const read of Object.values(READERS).slice(0, -1)) expect((await outcomeOfReading(() => read(name))).refused).toBeDefined();
  });
});

describe("what would fill the memory", () => {
  it.each(["a score file", "tokens.safetensors"])("is refused as %s", async (name) => {
    const path = join(await temporaryFolder(), name);
    const described = { dtype: "F32", shape: [2 ** 28, 2 ** 10], data_offsets: [0, 2 ** 40] };
    const start = startOfFile(Buffer.from(JSON.stringify({ input_ids: described })));
    await writeFile(path, start);
    await truncate(path, start.length + 2 ** 40);
    const { refused } = await outcomeOfReading(async () => READERS[name]?.(path));
    expect(refused?.detail).toMatch(/read into memory/);
  });

  it("is no index of thousands of links to one file", async () => {
    const dir = await writeCheckpoint(join(await temporaryFolder(), "parent"), undefined, { files: 2 });
    const shards = Array.from({ length: 3000 }, (_, i) => `model-${i}.safetensors`);
    await Promise.all(shards.map((name) => symlink("model-00001-of-00002.safetensors", join(dir, name))));
    const places = shards.map((name, i) => [`t${i}`, name]);
    await writeFile(join(dir, "model.safetensors.index.json"), JSON.stringify({ weight_map: Object.fromEntries(places) }));
    expect((await outcomeOfReading(() => readWeightedParent(dir))).refused).toMatchObject({ code: "BAD_INDEX" });
  });
});

it("a shard that has become a FIFO is not waited for", async () => {
  const dir = await temporaryFolder();
  await makeFifo(join(dir, "model.safetensors"));
  const stated = { file: "model.safetensors", bytes: 0, crc32: "00000000" };
  expect((await outcomeOfReading(() => checkShard(dir, stated, () => {}))).refused).toMatchObject({ code: "VERIFY_FAILED" });
});

async function makeFifo(path: string): Promise<void> {
  await execa("mkfifo", [path]);
  // Whoever waits for a writer all the same is let go, or a test that fails would hang.
  cleanups.push(async () => closeSync(openSync(path, constants.O_RDWR | constants.O_NONBLOCK)));
}

async function listen(path: string): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(path, resolve));
  cleanups.push(() => new Promise((resolve) => server.close(resolve)));
}

async function sparse(path: string, bytes: number): Promise<void> {
  const file = await open(path, "w");
  await file.truncate(bytes);
  await file.close();
}
