import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import { INDEX_FILE } from "../../src/checkpoint/folder.js";
import { describeParent, readWeightedParent } from "../../src/inspect.js";
import { writeCheckpoint } from "../fixtures/checkpoints.js";
import { near } from "./documents.js";
import { startOfFile } from "./headers.js";
import { FACTOR, outcomeOfReading, Tally, TIMEOUT_MS } from "./outcome.js";

const SHARD = "model-00002-of-00002.safetensors";
const OWN = ['"model.norm.weight"', '"model-00001-of-00002.safetensors"', `"${SHARD}"`, "[0,96]", '"BF16"', "24"];

let dir: string;
beforeAll(async () => {
  dir = await writeCheckpoint(await mkdtemp(join(tmpdir(), "prunebridge-fuzz-")), undefined, { files: 2 });
});
afterAll(() => rm(dir, { recursive: true, force: true }));

it(
  "a checkpoint one of whose files is near a good one is understood whole, or refused",
  async () => {
    const good = await Promise.all(
      ["config.json", INDEX_FILE, SHARD].map(async (name) => ({ name, bytes: await readFile(join(dir, name)) })),
    );
    const tally = new Tally();
    const file = fc.constantFrom(...good).chain(({ name, bytes }) => changed(name, bytes).map((content) => ({ name, bytes, content })));
    await fc.assert(
      fc.asyncProperty(file, async ({ name, bytes, content }) => {
        await writeFile(join(dir, name), content);
        const { value } = tally.count(await outcomeOfReading(() => readWeightedParent(dir)));
        await writeFile(join(dir, name), bytes);
        return !value || describeParent(value).weights?.tensors === value.matched?.tensors.length;
      }),
      { numRuns: 600 * FACTOR },
    );
    expect(tally.share).toBeGreaterThan(0.1);
  },
  TIMEOUT_MS,
);

/** A file near the given one; of a shard, its header. */
function changed(name: string, bytes: Buffer): fc.Arbitrary<Buffer> {
  if (name !== SHARD) return near(fc.constant(JSON.parse(bytes.toString()) as unknown), OWN, 2);
  const length = Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString()) as unknown;
  return near(fc.constant(header), OWN, 2).map((json) => Buffer.concat([startOfFile(json), bytes.subarray(8 + length)]));
}
