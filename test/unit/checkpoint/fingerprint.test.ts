import { appendFile, cp, open } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { inspect, readParent } from "../../../src/index.js";
import { temporaryFolder, writeCheckpoint } from "../../fixtures/checkpoints.js";

const fingerprintOf = async (dir: string): Promise<string | undefined> => (await inspect(dir)).fingerprint;

it("is of the network, not of where it lies", async () => {
  const dir = await temporaryFolder();
  const original = await writeCheckpoint(join(dir, "a"));
  await cp(original, join(dir, "b"), { recursive: true });
  expect(await fingerprintOf(join(dir, "b"))).toBe(await fingerprintOf(original));
});

it("tells other weights of the same shape", async () => {
  const dir = await temporaryFolder();
  const [one, other] = [
    await writeCheckpoint(join(dir, "a"), undefined, { seed: 1 }),
    await writeCheckpoint(join(dir, "b"), undefined, { seed: 2 }),
  ];
  expect(await fingerprintOf(other)).not.toBe(await fingerprintOf(one));
});

it("tells another config", async () => {
  const dir = await writeCheckpoint(await temporaryFolder());
  const before = await fingerprintOf(dir);
  await appendFile(join(dir, "config.json"), "\n");
  expect(await fingerprintOf(dir)).not.toBe(before);
});

it("looks at every tensor of a small file, in every shard", async () => {
  const dir = await writeCheckpoint(await temporaryFolder(), undefined, { files: 3 });
  const seen = new Set([await fingerprintOf(dir)]);
  const { checkpoint } = await readParent(dir);
  for (const { path, tensors } of checkpoint.headers) {
    for (const { begin } of tensors) {
      const file = await open(path, "r+");
      await file.write(Uint8Array.of(0xff), 0, 1, begin);
      await file.close();
      seen.add(await fingerprintOf(dir));
    }
  }
  expect(seen.size).toBe(checkpoint.tensors.length + 1);
});
