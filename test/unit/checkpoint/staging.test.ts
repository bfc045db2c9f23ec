import { chmod, mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { describe, expect, it } from "vitest";
import {
  carrySideFiles,
  checkTarget,
  findSideFiles,
  leaveStaging,
  openStaging,
  publish,
  type Staging,
  settleStaging,
  stageFile,
} from "../../../src/checkpoint/staging.js";
import { temporaryFolder } from "../../fixtures/checkpoints.js";

/** A staging folder as a cutter leaves it. */
async function staged(target: string, flush = true): Promise<Staging> {
  const staging = await openStaging(target, flush);
  await mkdir(staging.child, { recursive: true });
  return staging;
}

describe("staging", () => {
  it.each([true, false])("shows a folder under its name only once it is published (flush: %s)", async (flush) => {
    const dir = await temporaryFolder();
    const staging = await staged(join(dir, "deep", "child"), flush);
    await stageFile(staging, "config.json", "{}");
    expect(await readdir(join(dir, "deep"))).toEqual([".child.prunebridge-partial"]);
    await publish(staging);
    await settleStaging(staging);
    expect(await readdir(join(dir, "deep"))).toEqual(["child"]);
    expect(await readFile(join(dir, "deep", "child", "config.json"), "utf8")).toBe("{}");
  });

  it("publishes nothing of a file that was only half written", async () => {
    const dir = await temporaryFolder();
    const staging = await staged(join(dir, "child"));
    const broken = Readable.from(
      (async function* () {
        yield "half";
        throw new Error("the disk is gone");
      })(),
    );
    await expect(stageFile(staging, "tokenizer.json", () => broken)).rejects.toThrow("the disk is gone");
    expect(await readdir(staging.child)).toEqual([]);
  });

  it("keeps the job's folder where the cutter does, and removes the folders that it made above it where not", async () => {
    const dir = await temporaryFolder();
    const kept = await staged(join(dir, "a", "b", "child"));
    expect(await leaveStaging(kept)).toBe(true);
    expect(await readdir(join(dir, "a", "b"))).toEqual([".child.prunebridge-partial"]);
    expect(await leaveStaging(await openStaging(join(dir, "x", "y", "child"), true))).toBe(false);
    expect(await readdir(dir)).toEqual(["a"]);
  });

  it("leaves the folders in which someone else put something", async () => {
    const dir = await temporaryFolder();
    const staging = await openStaging(join(dir, "x", "child"), true);
    await writeFile(join(dir, "x", "notes.txt"), "mine");
    await leaveStaging(staging);
    expect(await readdir(join(dir, "x"))).toEqual(["notes.txt"]);
  });

  it("publishes into an empty folder, and not over one that was filled meanwhile", async () => {
    const dir = await temporaryFolder();
    await mkdir(join(dir, "child"));
    const early = await staged(join(dir, "child"));
    await publish(early);
    await settleStaging(early);
    const late = await staged(join(dir, "child"));
    await writeFile(join(dir, "child", "config.json"), "theirs");
    await expect(publish(late)).rejects.toThrow(/filled by someone else/);
    expect(await readFile(join(dir, "child", "config.json"), "utf8")).toBe("theirs");
  });
});

describe("checkTarget", () => {
  it("knows the parent under another name", async () => {
    const dir = await temporaryFolder();
    await mkdir(join(dir, "parent"));
    await symlink(join(dir, "parent"), join(dir, "alias"));
    await expect(checkTarget(join(dir, "alias"), join(dir, "parent"))).rejects.toThrow(/is the parent checkpoint itself/);
  });

  it("refuses a path below a file, and takes one whose folders are yet to be made", async () => {
    const dir = await temporaryFolder();
    const parent = await temporaryFolder();
    await writeFile(join(dir, "file"), "");
    await expect(checkTarget(join(dir, "file", "deep", "child"), parent)).rejects.toThrow(/PATH_DENIED/);
    await checkTarget(join(dir, "not", "yet", "child"), parent);
  });

  it("refuses a path within the parent, under whatever name", async () => {
    const dir = await temporaryFolder();
    const parent = join(dir, "parent");
    await mkdir(join(parent, "deep"), { recursive: true });
    await symlink(join(parent, "deep"), join(dir, "alias"));
    for (const target of [join(parent, "child"), join(parent, "not", "yet"), join(dir, "alias", "child")])
      await expect(checkTarget(target, parent)).rejects.toMatchObject({
        code: "PATH_DENIED",
        detail: expect.stringMatching(/lies within/),
      });
    await checkTarget(join(dir, "parent-child"), parent);
  });
});

describe("carrySideFiles", () => {
  it("copies everything but weights, hidden files and what is replaced", async () => {
    const dir = await temporaryFolder();
    const parent = join(dir, "parent");
    await mkdir(join(parent, "assets"), { recursive: true });
    for (const name of [
      "tokenizer.json",
      "config.json",
      "model.safetensors",
      "model.safetensors.index.json",
      "pytorch_model.bin",
      ".lock",
      "assets/chat.jinja",
      "modeling_custom.py",
    ]) {
      await writeFile(join(parent, name), name);
    }
    await chmod(join(parent, "tokenizer.json"), 0o444);
    const staging = await staged(join(dir, "child"));
    const found = await findSideFiles(parent, ["config.json"]);
    expect([...found.files].sort()).toEqual(["assets/chat.jinja", "modeling_custom.py", "tokenizer.json"]);
    await carrySideFiles(parent, staging, found);
    expect((await readdir(staging.child)).sort()).toEqual(["assets", "modeling_custom.py", "tokenizer.json"]);
    expect((await stat(join(staging.child, "tokenizer.json"))).mode & 0o777).toBe(0o666 & ~process.umask());
    // Another process may have put them there.
    await carrySideFiles(parent, staging, found);
  });

  it("makes nothing anew where another process has published the child", async () => {
    const dir = await temporaryFolder();
    const parent = join(dir, "parent");
    await mkdir(join(parent, "assets"), { recursive: true });
    await writeFile(join(parent, "assets", "chat.jinja"), "");
    const staging = await staged(join(dir, "child"));
    await publish(staging);
    await settleStaging(staging);
    await expect(carrySideFiles(parent, staging, await findSideFiles(parent, []))).rejects.toThrow(/ENOENT/);
    expect((await readdir(dir)).sort()).toEqual(["child", "parent"]);
  });
});
