import { mkdir, readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { carrySideFiles, checkTarget, discardStaging, openStaging, publish, stageDocument } from "../../../src/checkpoint/staging.js";
import { temporaryFolder } from "../../fixtures/checkpoints.js";

describe("staging", () => {
  it("shows a folder under its name only once it is published", async () => {
    const dir = await temporaryFolder();
    const staging = await openStaging(join(dir, "deep", "child"));
    await stageDocument(staging, "config.json", "{}");
    expect(await readdir(join(dir, "deep"))).toEqual([".child.prunebridge-partial"]);
    await publish(staging);
    expect(await readdir(join(dir, "deep"))).toEqual(["child"]);
    expect(await readFile(join(dir, "deep", "child", "config.json"), "utf8")).toBe("{}");
  });

  it("removes what a killed run left, and all that it made itself when discarded", async () => {
    const dir = await temporaryFolder();
    const killed = await openStaging(join(dir, "a", "b", "child"));
    await stageDocument(killed, "half.safetensors", "half");
    const staging = await openStaging(join(dir, "a", "b", "child"));
    expect(await readdir(staging.dir)).toEqual([]);
    await discardStaging(staging);
    expect(await readdir(join(dir, "a", "b"))).toEqual([]);
    const other = await openStaging(join(dir, "x", "y", "child"));
    await discardStaging(other);
    expect(await readdir(dir)).toEqual(["a"]);
  });

  it("leaves the folders in which someone else put something", async () => {
    const dir = await temporaryFolder();
    const staging = await openStaging(join(dir, "x", "child"));
    await writeFile(join(dir, "x", "notes.txt"), "mine");
    await discardStaging(staging);
    expect(await readdir(join(dir, "x"))).toEqual(["notes.txt"]);
  });

  it("publishes into an empty folder, and not over one that was filled meanwhile", async () => {
    const dir = await temporaryFolder();
    await mkdir(join(dir, "child"));
    await publish(await openStaging(join(dir, "child")));
    const late = await openStaging(join(dir, "child"));
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
    await writeFile(join(dir, "file"), "");
    await expect(checkTarget(join(dir, "file", "deep", "child"), dir)).rejects.toThrow(/PATH_DENIED/);
    await checkTarget(join(dir, "not", "yet", "child"), dir);
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
    const staging = await openStaging(join(dir, "child"));
    const carried = await carrySideFiles(parent, staging, ["config.json"]);
    expect(carried.sort()).toEqual(["assets/chat.jinja", "modeling_custom.py", "tokenizer.json"]);
    expect((await readdir(staging.dir)).sort()).toEqual(["assets", "modeling_custom.py", "tokenizer.json"]);
  });
});
