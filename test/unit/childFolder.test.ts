import { randomUUID } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { execa } from "execa";
import { beforeEach, describe, expect, it } from "vitest";
import { MACHINE } from "../../src/checkpoint/atomicFile.js";
import { readManifest } from "../../src/checkpoint/manifest.js";
import { openStaging, publish, settleStaging, stageFile } from "../../src/checkpoint/staging.js";
import { type ChildRecord, type ChildWork, type CutShards, makeChild, recordOf } from "../../src/childFolder.js";
import { layOutChild } from "../../src/childLayout.js";
import { claimJob, settleClaims } from "../../src/claims.js";
import { type PlanFile, plan, readParent } from "../../src/index.js";
import { TINY_LLAMA, temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";

const SHARD = "model.safetensors";

let dir: string;
let target: string;
let jobDir: string;
let record: ChildRecord;
beforeEach(async () => {
  dir = await temporaryFolder();
  target = join(dir, "child");
  jobDir = join(dir, ".child.prunebridge-partial");
  const parent = await readParent(await writeCheckpoint(await temporaryFolder(), TINY_LLAMA));
  const planned: PlanFile = plan(parent, { num_layers: 2 }, "position");
  record = recordOf(layOutChild(parent, planned, {}), planned, { parent: { path: "", fingerprint: "" } });
});

/** Cuts as a shim does: into a job's folder that is there, or a new one. */
async function cut(folder: string, job: string, weights = job): Promise<CutShards> {
  await mkdir(join(folder, "child"), { recursive: true });
  await writeFile(join(folder, "job.json"), JSON.stringify({ folder: job }));
  await writeFile(join(folder, "child", SHARD), weights);
  return { shards: [{ file: SHARD, bytes: weights.length, crc32: 0, sha256: new Uint8Array() }], foundBytes: 0, folderId: job };
}

function workOf(resumes: boolean, over: Partial<ChildWork> = {}): ChildWork {
  return {
    ...record,
    files: { carried: [], written: new Map([["config.json", "{}"]]) },
    flush: false,
    resumes,
    cut: (folder) => cut(folder, "mine"),
    findTheirs: () => readManifest(target).catch(() => undefined),
    ...over,
  };
}

const weightsIn = (folder: string): Promise<string> => readFile(join(folder, SHARD), "utf8");

describe("a job that processes share", () => {
  it("publishes nothing where another job took its folder once it was cut", async () => {
    const overtaken = async (folder: string): Promise<CutShards> => {
      const shards = await cut(folder, "mine");
      await rm(folder, { recursive: true });
      await cut(folder, "theirs", "half of ");
      return shards;
    };
    await expect(makeChild(target, workOf(true, { cut: overtaken }))).rejects.toMatchObject({ code: "TARGET_BUSY" });
    expect(await readdir(dir)).toEqual([basename(jobDir)]);
    expect(await weightsIn(join(jobDir, "child"))).toBe("half of ");
  });

  it("is out of reach of another one while its child is staged", async () => {
    const side = await temporaryFolder();
    // A pipe, which holds the staging up until something is written to it.
    await execa("mkfifo", [join(side, "tokenizer.json")]);
    const files = { ...workOf(true).files, carried: [{ from: side, into: "", files: { folders: [], files: ["tokenizer.json"] } }] };
    const making = makeChild(target, workOf(true, { files }));
    await expect.poll(async () => (await readdir(dir)).filter((name) => name.includes(".claimed-"))).toHaveLength(1);
    await cut(jobDir, "theirs");
    await writeFile(join(side, "tokenizer.json"), "{}");
    const manifest = await making;
    expect(manifest.shards[0]?.bytes).toBe("mine".length);
    expect(await weightsIn(target)).toBe("mine");
    expect(await weightsIn(join(jobDir, "child"))).toBe("theirs");
  });

  it("gives the child of whoever took it to publish, once that is there", async () => {
    const holder = await openStaging(target, false);
    const taken = async (folder: string): Promise<CutShards> => {
      const shards = await cut(folder, "mine");
      const claim = await claimJob(holder, "mine");
      void finish(claim.staging);
      return shards;
    };
    const finish = async (staging: typeof holder): Promise<void> => {
      await sleep(300);
      await stageFile(staging, "prune_manifest.json", await manifestText());
      await publish(staging);
      await settleStaging(staging);
    };
    expect(await makeChild(target, workOf(true, { cut: taken }))).toMatchObject({ version: "theirs" });
    await expect.poll(() => readdir(dir)).toEqual(["child"]);
  });

  it("is gone on with where one was killed that had taken it", async () => {
    const { pid, exitCode } = await killed();
    expect(exitCode).toBe(0);
    await cut(jobDir, "mine");
    await rename(jobDir, `${jobDir}.claimed-${MACHINE}-${pid}-${randomUUID()}`);
    const found: string[] = [];
    const goOn = async (folder: string): Promise<CutShards> => {
      found.push(await weightsIn(join(folder, "child")));
      return cut(folder, "mine");
    };
    await makeChild(target, workOf(true, { cut: goOn }));
    expect(found).toEqual(["mine"]);
    expect(await readdir(dir)).toEqual(["child"]);
  });

  it("is kept for the next run where its child cannot be staged", async () => {
    const files = { carried: [], written: new Map([["no/such/folder.json", ""]]) };
    const failing = makeChild(target, workOf(true, { files }));
    await expect(failing).rejects.toMatchObject({ code: "STORAGE_FAILED", hint: expect.stringContaining(`is kept in ${jobDir}`) });
    expect(await readdir(dir)).toEqual([basename(jobDir)]);
  });
});

async function killed(): Promise<{ pid: number | undefined; exitCode: number | undefined }> {
  const child = execa(process.execPath, ["-e", ""]);
  return { pid: child.pid, exitCode: (await child).exitCode };
}

async function manifestText(): Promise<string> {
  const manifest = await makeChild(join(await temporaryFolder(), "child"), workOf(true));
  return JSON.stringify({ ...manifest, version: "theirs" });
}

describe("a claim of another machine", () => {
  it("is waited for while it gives signs of life, and given back when it gives none", async () => {
    const staging = await openStaging(target, false);
    await cut(jobDir, "mine");
    const { staging: claimed, release } = await claimJob(staging, "mine");
    release();
    const theirs = `${jobDir}.claimed-elsewhere-1-${randomUUID()}`;
    await rename(claimed.dir, theirs);
    const [beat] = (await readdir(theirs)).filter((name) => name.startsWith(".claim."));
    let settled = false;
    const settling = settleClaims(staging, undefined, 1000).then((found) => {
      settled = true;
      return found;
    });
    for (let beats = 0; beats < 15; beats++) {
      await writeFile(join(theirs, beat ?? ""), `again ${beats}`);
      await sleep(100);
    }
    expect(settled).toBe(false);
    expect(await settling).toBe(true);
    expect(await readdir(dir)).toEqual([basename(jobDir)]);
    expect((await readdir(jobDir)).sort()).toEqual(["child", "job.json"]);
  });
});

describe("children that are made anew each time", () => {
  it("do not see each other: the first has the name, and the other leaves nothing", async () => {
    const together = async (folder: string, job: string): Promise<CutShards> => {
      const shards = await cut(folder, job);
      while ((await readdir(dir)).filter((name) => name.includes("partial")).length < 2 && !(await readdir(dir)).includes("child"))
        await sleep(5);
      return shards;
    };
    const saves = ["one", "two"].map((job) =>
      makeChild(target, workOf(false, { cut: (folder) => together(folder, job), findTheirs: async () => undefined })),
    );
    const outcomes = await Promise.allSettled(saves);
    const won = outcomes.findIndex(({ status }) => status === "fulfilled");
    expect(outcomes[1 - won]).toMatchObject({ reason: { code: "TARGET_EXISTS" } });
    expect(await weightsIn(target)).toBe(["one", "two"][won]);
    expect(await readdir(dir)).toEqual(["child"]);
  });

  it("leave nothing where one cannot be staged", async () => {
    const files = { carried: [], written: new Map([["no/such/folder.json", ""]]) };
    await expect(makeChild(join(dir, "deep", "child"), workOf(false, { files }))).rejects.toMatchObject({ code: "STORAGE_FAILED" });
    expect(await readdir(dir)).toEqual([]);
  });
});
