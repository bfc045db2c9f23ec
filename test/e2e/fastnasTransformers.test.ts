import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterAll, beforeAll, expect, it } from "vitest";
import { encodeSafetensors } from "../../src/checkpoint/writeSafetensors.js";
import { asFloat32, Bridge, type NetworkModel, prune } from "../../src/index.js";
import { findPython } from "../../src/shim/python.js";
import { largestDifference } from "../fixtures/goldens.js";
import { images, nearness } from "../fixtures/vision.js";

const SCRIPTS = join(dirname(fileURLToPath(import.meta.url)), "..", "fixtures", "python");
const INPUTS = images(2, 32);
const by = (channel_divisor: number) => ({ "*": { channel_divisor } });

let bridge: Bridge;
let dir: string;
let parent: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "prunebridge-test-"));
  parent = join(dir, "parent");
  [bridge] = await Promise.all([Bridge.spawn(), execa(findPython(), [join(SCRIPTS, "save_resnet.py"), parent])]);
});
afterAll(async () => {
  await bridge?.close();
  await rm(dir, { recursive: true, force: true });
});

async function pruneTo(
  folder: string,
  out: string,
  options: Record<string, unknown>,
  constraints: Record<string, string>,
): Promise<Float32Array> {
  await using network: NetworkModel = await bridge.load({ checkpoint: folder });
  const scoreFunc = nearness(INPUTS, asFloat32(await network.output(INPUTS)));
  const { subnet } = await prune(network, { fastnas: options }, constraints, INPUTS, { scoreFunc });
  await subnet.save(out);
  return asFloat32(await subnet.output(INPUTS));
}

it("a child that a config expresses is a plain checkpoint, which transformers loads", async () => {
  const [out, data] = [join(dir, "child"), join(dir, "images.safetensors")];
  // Only the embedder's channels are cut, which the config counts by themselves.
  const options = { "nn.Conv2d": { ...by(8), "resnet.encoder.*": null } };
  const expected = await pruneTo(parent, out, options, { params: "98%" });
  expect((await readdir(out)).sort()).toEqual(["config.json", "model.safetensors", "preprocessor_config.json", "prune_manifest.json"]);
  const [ours, theirs] = await Promise.all(
    [out, parent].map(async (folder) => JSON.parse(await readFile(join(folder, "config.json"), "utf8"))),
  );
  expect(ours).toEqual({ ...theirs, embedding_size: 8 });

  await writeFile(data, encodeSafetensors([{ name: "images", ...INPUTS }], {}));
  const { stdout } = await execa(findPython(), [join(SCRIPTS, "classify.py"), out, data]);
  const { info, logits } = JSON.parse(stdout) as { info: unknown; logits: number[] };
  expect(info).toEqual({ missing_keys: [], unexpected_keys: [], mismatched_keys: [] });
  expect(largestDifference(Float32Array.from(logits), expected)).toBeLessThanOrEqual(1e-5);
});

it("one that none expresses says what it is built of, and is loaded by that, pruned again and saved again", async () => {
  const [first, second] = [join(dir, "first"), join(dir, "second")];
  const expected = await pruneTo(parent, first, { "nn.Conv2d": by(8) }, { flops: "60%" });
  expect((await readdir(first)).sort()).toEqual([
    "architecture.json",
    "model.safetensors",
    "preprocessor_config.json",
    "prune_manifest.json",
  ]);
  {
    await using child = await bridge.load({ checkpoint: first });
    expect(asFloat32(await child.output(INPUTS))).toEqual(expected);
  }
  const again = await pruneTo(first, second, { "nn.Conv2d": by(4) }, { flops: "80%" });
  await using grandchild = await bridge.load({ checkpoint: second });
  expect(asFloat32(await grandchild.output(INPUTS))).toEqual(again);
});
