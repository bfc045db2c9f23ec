import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { expect, it } from "vitest";
import { removeLeftovers, writeFileAtomically } from "../../../src/checkpoint/atomicFile.js";
import { hashOf } from "../../../src/hash.js";
import { temporaryFolder } from "../../fixtures/checkpoints.js";

/** The id of a process that has ended. */
async function goneProcess(): Promise<number> {
  const child = execa(process.execPath, ["-e", ""]);
  await child;
  return child.pid ?? 0;
}

it("leaves what was there, and nothing beside it, where it cannot write", async () => {
  const dir = await temporaryFolder();
  await mkdir(join(dir, "taken", "by a folder"), { recursive: true });
  await expect(writeFileAtomically(join(dir, "taken"), "text")).rejects.toMatchObject({ code: "STORAGE_FAILED" });
  await writeFile(join(dir, "taken", "file"), "");
  await expect(writeFileAtomically(join(dir, "taken", "file", "below"), "text")).rejects.toMatchObject({ code: "STORAGE_FAILED" });
  expect(await readdir(dir)).toEqual(["taken"]);
  await writeFileAtomically(join(dir, "made", "file"), "one");
  await writeFileAtomically(join(dir, "made", "file"), "two");
  expect(await readFile(join(dir, "made", "file"), "utf8")).toBe("two");
  expect(await readdir(join(dir, "made"))).toEqual(["file"]);
});

it("removes what writers left that are no more, and nothing else", async () => {
  const dir = await temporaryFolder();
  const [gone, alive] = [await goneProcess(), process.pid];
  const here = hashOf(hostname()).slice(0, 8);
  const others = [
    `.plan.json.${here}-${alive}-0123abcd`,
    `.plan.json.00000000-${gone}-0123abcd`,
    ".plan.json.swp",
    ".hidden",
    "plan.json",
    `plan.json.${here}-${gone}-0123abcd`,
  ];
  for (const name of [...others, `.plan.json.${here}-${gone}-0123abcd`, `.scores.safetensors.${here}-${gone}-ffffffff`])
    await writeFile(join(dir, name), "");
  await removeLeftovers(dir);
  expect((await readdir(dir)).sort()).toEqual(others.sort());
  await removeLeftovers(join(dir, "none"));
});
