import { createHash } from "node:crypto";
import { readdir, readFile, rename, rm, stat, truncate, utimes, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  Bridge,
  findChild,
  type Manifest,
  type Parent,
  type PlanFile,
  plan,
  readParent,
  type SliceOptions,
  slice,
  verify,
  writePlanFile,
} from "../../src/index.js";
import { mulberry32, TINY_LLAMA, temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";
import { type CliResult, startCli } from "../fixtures/cli.js";
import { randomScores } from "../fixtures/cutting.js";

const FIXTURES = join(dirname(fileURLToPath(import.meta.url)), "..", "fixtures");
const SOAK = process.env["PRUNEBRIDGE_SOAK"] === "1";
const SOAK_MS = 30 * 60_000;
const SLOW = { PYTHONPATH: join(FIXTURES, "slow_slicing"), SLOW_SLICING_SECONDS: "0.1" };
// The same tiny pieces, without delay: work is only gone on with in the same pieces.
const QUICK = { ...SLOW, SLOW_SLICING_SECONDS: "0" };
const TARGET = { hidden_size: 16, ffn_hidden_size: 24 };

interface Prepared {
  readonly dir: string;
  readonly parent: Parent;
  readonly made: PlanFile;
  readonly planPath: string;
  readonly target: string;
  /** Where what is kept of a slicing lies. */
  readonly partial: string;
}

/** A parent in three files, a plan for it, and where the child is to be. */
async function prepare(exportConfig = TARGET): Promise<Prepared> {
  const dir = await temporaryFolder();
  const parent = await readParent(await writeCheckpoint(join(dir, "parent"), TINY_LLAMA, { files: 3 }));
  const made = plan(parent, exportConfig, { scores: randomScores(TINY_LLAMA, 1), path: "random" });
  const planPath = join(dir, "plan.json");
  await writePlanFile(planPath, made);
  return { dir, parent, made, planPath, target: join(dir, "child"), partial: join(dir, ".child.prunebridge-partial") };
}

const sliceArgs = ({ parent, planPath, target }: Prepared): string[] => [
  "slice",
  parent.checkpoint.dir,
  "--plan",
  planPath,
  "--out",
  target,
  "--json",
];

async function filesOf(folder: string): Promise<Record<string, string>> {
  const names = (await readdir(folder)).sort();
  const texts = await Promise.all(names.map((name) => readFile(join(folder, name), "latin1")));
  return Object.fromEntries(names.map((name, i) => [name, texts[i]?.replace(/"path": ".*"/, '"path": ""') ?? ""]));
}

/** Lines in the journals of a job. */
async function journaled(partial: string): Promise<number> {
  const folder = join(partial, "journals");
  const texts = await Promise.all(
    (await readdir(folder).catch(() => [])).map((name) => readFile(join(folder, name), "utf8").catch(() => "")),
  );
  return texts.join("").split("\n").length - 1;
}

/** Waits until some pieces of a job are on the disk. */
async function begun({ partial }: Prepared, pieces = 3): Promise<void> {
  const started = performance.now();
  while ((await journaled(partial)) < pieces) {
    if (performance.now() - started > 60_000) throw new Error("nothing was written");
    await sleep(10);
  }
}

let bridge: Bridge;
let slow: Bridge;
let expected: Record<string, string> | undefined;
beforeAll(async () => {
  bridge = await Bridge.spawn({ env: QUICK });
  slow = await Bridge.spawn({ env: SLOW });
});
afterAll(async () => {
  await Promise.all([bridge?.close(), slow?.close()]);
});

/** What an undisturbed run makes of the same parent and plan, in pieces of the usual size. */
async function undisturbed(): Promise<Record<string, string>> {
  if (expected === undefined) {
    const { parent, made, target } = await prepare();
    await using usual = await Bridge.spawn();
    await slice(usual, parent, made, target);
    expected = await filesOf(target);
  }
  return expected;
}

async function expectWhole({ dir, target }: Prepared): Promise<void> {
  expect(await filesOf(target)).toEqual(await undisturbed());
  await verify(target);
  expect((await readdir(dir)).sort()).toEqual(["child", "parent", "plan.json"]);
}

describe("a slicing that is killed", () => {
  it("with all its processes goes on from there when it is run again, and says what it found", async () => {
    const prepared = await prepare();
    for (const pieces of [3, 8]) {
      const { child, result } = startCli(sliceArgs(prepared), SLOW);
      await begun(prepared, pieces);
      child.kill("SIGKILL");
      await result;
      expect(await readdir(prepared.dir)).not.toContain("child");
    }
    const { exitCode, json } = await startCli(sliceArgs(prepared), QUICK).result;
    expect(exitCode).toBe(0);
    expect(json["foundBytes"]).toBeGreaterThanOrEqual(8 * 1000);
    await expectWhole(prepared);
  });

  it(
    "at any time, again and again, ends in the same bytes",
    async () => {
      const random = mulberry32(11);
      let died = 0;
      for (let round = 0; round < (SOAK ? 20 : 1); round++) {
        const prepared = await prepare();
        for (let run = 0; run < 3; run++) {
          const { child, result } = startCli(sliceArgs(prepared), SLOW);
          if (run === 0) await begun(prepared, 1);
          await sleep(random() * (run === 0 ? 600 : 2500));
          child.kill("SIGKILL");
          died += (await result).exitCode === undefined ? 1 : 0;
          if ((await readdir(prepared.dir)).includes("child")) break;
        }
        if (!(await readdir(prepared.dir)).includes("child")) await slice(bridge, prepared.parent, prepared.made, prepared.target);
        await expectWhole(prepared);
      }
      expect(died).toBeGreaterThan(0);
    },
    SOAK_MS,
  );

  it("with its shim tells where to go on from, and goes on with another one", async () => {
    const prepared = await prepare();
    const dying = await Bridge.spawn({ env: SLOW });
    const cutting = slice(dying, prepared.parent, prepared.made, prepared.target).catch((error: unknown) => error);
    await begun(prepared);
    process.kill(dying.pid, "SIGKILL");
    expect(await cutting).toMatchObject({ code: "SHIM_DIED", hint: expect.stringContaining(`is kept in ${prepared.partial}`) });
    await dying.close();
    const found: number[] = [];
    await slice(bridge, prepared.parent, prepared.made, prepared.target, { onFound: (bytes) => found.push(bytes) });
    expect(found[0]).toBeGreaterThan(0);
    await expectWhole(prepared);
  });
});

describe("a slicing that is cancelled", () => {
  it("keeps what it wrote, and goes on from there", async () => {
    const prepared = await prepare();
    const cancel = new AbortController();
    const cutting = slice(slow, prepared.parent, prepared.made, prepared.target, { signal: cancel.signal }).catch(
      (error: unknown) => error,
    );
    await begun(prepared);
    cancel.abort();
    expect(await cutting).toMatchObject({
      code: "CANCELLED",
      hint: expect.stringMatching(/[\d,]+ bytes are kept in .*prunebridge-partial/),
    });
    const found: number[] = [];
    await slice(bridge, prepared.parent, prepared.made, prepared.target, { onFound: (bytes) => found.push(bytes) });
    expect(found[0]).toBeGreaterThan(0);
    await expectWhole(prepared);
  });

  it("before anything is written leaves nothing, nor the folders that it made", async () => {
    const prepared = await prepare();
    const deep = join(prepared.dir, "a", "b", "child");
    const cutting = slice(slow, prepared.parent, prepared.made, deep, { signal: AbortSignal.abort() });
    await expect(cutting).rejects.toMatchObject({ code: "CANCELLED", hint: "" });
    expect(await readdir(prepared.dir)).toEqual(["parent", "plan.json"]);
  });
});

describe("several processes that slice onto one target", () => {
  it("share the work of one plan, and all give its manifest", async () => {
    const prepared = await prepare();
    const others = await Promise.all([0, 1].map(() => Bridge.spawn({ env: SLOW })));
    const found: number[] = [];
    const options: SliceOptions = { onFound: (bytes) => found.push(bytes) };
    const manifests = await Promise.all(
      [slow, ...others].map((one) => slice(one, prepared.parent, prepared.made, prepared.target, options)),
    );
    await Promise.all(others.map((one) => one.close()));
    expect(new Set(manifests.map((one) => JSON.stringify(one))).size).toBe(1);
    // Whoever published found what the others had cut.
    expect(found[0]).toBeGreaterThan(0);
    await expectWhole(prepared);
    // One that comes when all is done.
    expect(await slice(slow, prepared.parent, prepared.made, prepared.target)).toEqual(manifests[0]);
    await truncate(join(prepared.target, manifests[0]?.shards[0]?.file ?? ""), 100);
    await expect(slice(slow, prepared.parent, prepared.made, prepared.target)).rejects.toThrow(/TARGET_EXISTS/);
  });

  it("end in one child though one is killed and one is stopped", async () => {
    const prepared = await prepare();
    const slower = { ...SLOW, SLOW_SLICING_SECONDS: "0.3" };
    const [killed, stopped] = await Promise.all([0, 1].map(() => Bridge.spawn({ env: slower })));
    if (!killed || !stopped) throw new Error("two were started");
    const runs = [killed, stopped].map((one) =>
      slice(one, prepared.parent, prepared.made, prepared.target).catch((error: unknown) => error),
    );
    await begun(prepared, 4);
    process.kill(stopped.pid, "SIGSTOP");
    process.kill(killed.pid, "SIGKILL");
    try {
      await slice(slow, prepared.parent, prepared.made, prepared.target);
      await expectWhole(prepared);
    } finally {
      process.kill(stopped.pid, "SIGCONT");
    }
    expect(await runs[0]).toMatchObject({ code: "SHIM_DIED" });
    const theirs = (await runs[1]) as Manifest;
    expect(theirs.shards).toEqual((await manifestIn(prepared.target)).shards);
    await Promise.all([killed.close(), stopped.close()]);
    await expectWhole(prepared);
  });

  it("by other plans get in each other's way by an error alone", async () => {
    const prepared = await prepare();
    const other = plan(prepared.parent, { hidden_size: 12 }, { scores: randomScores(TINY_LLAMA, 2), path: "random" });
    const cutting = slice(slow, prepared.parent, prepared.made, prepared.target);
    await begun(prepared);
    await expect(slice(bridge, prepared.parent, other, prepared.target)).rejects.toMatchObject({
      code: "TARGET_BUSY",
      hint: expect.stringMatching(/name another target/),
    });
    await cutting;
    await expectWhole(prepared);
  });

  it("by another plan after one that was broken off begin anew", async () => {
    const prepared = await prepare();
    const cancel = new AbortController();
    const other = plan(prepared.parent, { hidden_size: 12 }, { scores: randomScores(TINY_LLAMA, 2), path: "random" });
    const cutting = slice(slow, prepared.parent, other, prepared.target, { signal: cancel.signal }).catch(() => {});
    await begun(prepared);
    cancel.abort();
    await cutting;
    await slice(bridge, prepared.parent, prepared.made, prepared.target);
    await expectWhole(prepared);
  });
});

async function manifestIn(target: string): Promise<Manifest> {
  return JSON.parse(await readFile(join(target, "prune_manifest.json"), "utf8")) as Manifest;
}

describe("a parent that changes while it is sliced", () => {
  const shardOf = ({ parent }: Prepared): string => parent.checkpoint.headers.at(-1)?.path ?? "";
  it.each([
    ["is truncated", async (path: string) => truncate(path, 2000)],
    ["is touched", async (path: string) => utimes(path, new Date(), new Date())],
    [
      "is replaced",
      async (path: string) => {
        const bytes = await readFile(path);
        await rename(path, `${path}.old`);
        await writeFile(path, bytes);
      },
    ],
  ])("and %s leaves nothing", async (_, change) => {
    const prepared = await prepare();
    const cutting = slice(slow, prepared.parent, prepared.made, prepared.target).catch((error: unknown) => error);
    await begun(prepared);
    await change(shardOf(prepared));
    expect(await cutting).toMatchObject({ code: "SOURCE_CHANGED", detail: expect.stringContaining(shardOf(prepared)) });
    await rm(`${shardOf(prepared)}.old`, { force: true });
    expect((await readdir(prepared.dir)).sort()).toEqual(["parent", "plan.json"]);
  });
});

describe("what slicing writes", () => {
  it.each([
    ["022", 0o644, 0o755],
    ["027", 0o640, 0o750],
  ])("heeds a umask of %s", async (umask, fileMode, folderMode) => {
    const prepared = await prepare();
    const before = process.umask(Number.parseInt(umask, 8));
    const run = startCli(sliceArgs(prepared));
    process.umask(before);
    expect((await run.result).exitCode).toBe(0);
    expect((await stat(prepared.target)).mode & 0o777).toBe(folderMode);
    for (const name of await readdir(prepared.target)) expect((await stat(join(prepared.target, name))).mode & 0o777, name).toBe(fileMode);
  });

  it("has a SHA-256 of each shard where it is asked for, flushed or not", async () => {
    const prepared = await prepare();
    const { json }: CliResult = await startCli([...sliceArgs(prepared), "--sha256", "--no-flush"]).result;
    for (const { file, sha256 } of json["shards"] as Manifest["shards"]) {
      expect(sha256).toBe(
        createHash("sha256")
          .update(await readFile(join(prepared.target, file)))
          .digest("hex"),
      );
    }
    const { "prune_manifest.json": _manifest, ...files } = await filesOf(prepared.target);
    expect(await undisturbed()).toMatchObject(files);
    await verify(prepared.target);
  });
});

describe("a target that holds a child", () => {
  it("of another layout is not taken for the child that is asked for", async () => {
    const dir = await temporaryFolder();
    const parent = await readParent(await writeCheckpoint(join(dir, "parent"), TINY_LLAMA));
    const made = plan(parent, TARGET, { scores: randomScores(TINY_LLAMA, 1), path: "random" });
    const target = join(dir, "child");
    const manifest = await slice(bridge, parent, made, target);
    expect(manifest.laidOut).toEqual({ layout: "huggingface", format: "safetensors" });
    expect(await findChild(parent, made, target, { layout: "huggingface" })).toEqual(manifest);
    const other: SliceOptions = { layout: "megatron" };
    expect(await findChild(parent, made, target, other)).toBeUndefined();
    await expect(slice(bridge, parent, made, target, other)).rejects.toMatchObject({ code: "TARGET_EXISTS" });
  });

  it("without the SHA-256 that is asked for says so, and is taken with one", async () => {
    const prepared = await prepare();
    const { parent, made, target } = prepared;
    const wanting = { code: "TARGET_EXISTS", detail: expect.stringMatching(/has no SHA-256/) };
    await slice(bridge, parent, made, target);
    await expect(slice(bridge, parent, made, target, { sha256: true })).rejects.toMatchObject(wanting);
    const { exitCode, json } = await startCli([...sliceArgs(prepared), "--sha256"]).result;
    expect([exitCode, json["error"]]).toEqual([2, expect.objectContaining({ code: "TARGET_EXISTS" })]);
    await rm(target, { recursive: true });
    const manifest = await slice(bridge, parent, made, target, { sha256: true });
    expect(await slice(bridge, parent, made, target, { sha256: true })).toEqual(manifest);
  });
});
