// verify against the parent: what was changed after the cut is found, though the manifest was made to agree with it.
import { createHash } from "node:crypto";
import { readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { HeaderTensor } from "../../src/checkpoint/header.js";
import { readHeader } from "../../src/checkpoint/safetensors.js";
import { Bridge, plan, readParent, slice, verify } from "../../src/index.js";
import { TINY_LLAMA, temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";
import { runCli } from "../fixtures/cli.js";
import { randomScores } from "../fixtures/cutting.js";

const DOWN = "model.layers.1.mlp.down_proj.weight";
const ROWS = 16;
const ROW_BYTES = 20 * 2;

let bridge: Bridge;
beforeAll(async () => {
  bridge = await Bridge.spawn();
});
afterAll(() => bridge?.close());

let dir: string;
let parent: string;
let child: string;
beforeEach(async () => {
  dir = await temporaryFolder();
  parent = await writeCheckpoint(join(dir, "parent"), TINY_LLAMA, { files: 3, dtype: "BF16" });
  child = join(dir, "child");
  const read = await readParent(parent);
  const target = { hidden_size: ROWS, ffn_hidden_size: ROW_BYTES / 2, num_layers: 2 };
  await slice(bridge, read, plan(read, target, { scores: randomScores(TINY_LLAMA, 2), path: "random" }), child);
});

interface Manifest {
  shards: { file: string; bytes: number; crc32: string; sha256?: string }[];
  parent: { path: string; fingerprint: string };
}

async function changeManifest(change: (manifest: Manifest) => void): Promise<void> {
  const path = join(child, "prune_manifest.json");
  const manifest: Manifest = JSON.parse(await readFile(path, "utf8"));
  change(manifest);
  await writeFile(path, JSON.stringify(manifest));
}

/** Changes a tensor's bytes, and makes the manifest agree with what came of it. */
async function forge(name: string, change: (bytes: Buffer, header: HeaderTensor) => void): Promise<void> {
  const shards = JSON.parse(await readFile(join(child, "prune_manifest.json"), "utf8")).shards as Manifest["shards"];
  for (const { file } of shards) {
    const path = join(child, file);
    const tensor = (await readHeader(path)).tensors.find((one) => one.name === name);
    if (!tensor) continue;
    const whole = await readFile(path);
    change(whole.subarray(tensor.begin, tensor.end), tensor);
    await writeFile(path, whole);
    await changeManifest((manifest) => {
      for (const shard of manifest.shards) if (shard.file === file) shard.crc32 = crc32(whole).toString(16).padStart(8, "0");
    });
    return;
  }
  throw new Error(`the child has no ${name}`);
}

function flip(row: number, position: number): (bytes: Buffer) => void {
  return (bytes) => {
    const at = row * ROW_BYTES + position * 2;
    bytes[at] = (bytes[at] ?? 0) ^ 1;
  };
}

describe("verify against the parent", () => {
  it("compares some rows of every tensor, or all of them", async () => {
    const { checkedBytes, values } = await verify(child);
    expect(values).toMatchObject({ parent, tensors: 21, ofBytes: expect.any(Number) });
    const sampled = values as { bytes: number; ofBytes: number };
    expect(sampled.bytes).toBeGreaterThan(0.1 * sampled.ofBytes);
    expect(sampled.bytes).toBeLessThan(0.5 * sampled.ofBytes);
    const { values: all } = await verify(child, { full: true });
    expect(all).toEqual({ ...values, bytes: sampled.ofBytes });
    expect(checkedBytes).toBeGreaterThan(sampled.ofBytes);
    expect((await verify(child, { rows: 1000 })).values).toEqual(all);
  });

  it.each([0, ROWS - 1])("finds a byte of row %i that was changed, though its checksum was too", async (row) => {
    await forge(DOWN, flip(row, 3));
    await expect(verify(child)).rejects.toMatchObject({
      code: "VERIFY_FAILED",
      detail: expect.stringMatching(
        new RegExp(
          `${DOWN} differs at row ${row}, position 3, from row \\d+, position \\d+, of model\\.layers\\.\\d\\.mlp\\.down_proj\\.weight`,
        ),
      ),
    });
  });

  it("finds every byte that was changed when it looks at all, and is deterministic about which it samples", async () => {
    const found: number[] = [];
    for (let row = 0; row < ROWS; row++) {
      await forge(DOWN, flip(row, 19));
      await expect(verify(child, { full: true })).rejects.toThrow(`${DOWN} differs at row ${row}, position 19,`);
      const sampled = await Promise.all(
        [verify(child), verify(child)].map((run) =>
          run.then(
            () => 0,
            () => 1,
          ),
        ),
      );
      expect(sampled[0]).toBe(sampled[1]);
      if (sampled[0] === 1) found.push(row);
      await forge(DOWN, flip(row, 19));
    }
    expect(found).toHaveLength(4);
    expect(found).toEqual(expect.arrayContaining([0, ROWS - 1]));
  });

  it("finds rows and tensors that were swapped", async () => {
    const swapEnds = (bytes: Buffer): void => {
      const first = Buffer.from(bytes.subarray(0, ROW_BYTES));
      bytes.copy(bytes, 0, bytes.length - ROW_BYTES);
      first.copy(bytes, bytes.length - ROW_BYTES);
    };
    await forge(DOWN, swapEnds);
    await expect(verify(child)).rejects.toThrow(/VERIFY_FAILED.*down_proj.weight differs at row 0, position 0/);
    await forge(DOWN, swapEnds);
    let gate = Buffer.alloc(0);
    await forge("model.layers.0.mlp.gate_proj.weight", (bytes) => {
      gate = Buffer.from(bytes);
    });
    await forge("model.layers.0.mlp.up_proj.weight", (bytes) => void gate.copy(bytes));
    await expect(verify(child)).rejects.toThrow(/VERIFY_FAILED.*up_proj.weight differs at row 0/);
  });

  it("compares SHA-256 where the manifest has it", async () => {
    const hashOf = async (file: string): Promise<string> =>
      createHash("sha256")
        .update(await readFile(join(child, file)))
        .digest("hex");
    const [first = ""] = (JSON.parse(await readFile(join(child, "prune_manifest.json"), "utf8")) as Manifest).shards.map(
      ({ file }) => file,
    );
    const right = await hashOf(first);
    const state = (sha256: string): Promise<void> =>
      changeManifest(({ shards }) => {
        if (shards[0]) shards[0].sha256 = sha256;
      });
    await state(right);
    await verify(child);
    await state(right.replace(/^./, (digit) => (digit === "0" ? "1" : "0")));
    await expect(verify(child)).rejects.toThrow(/VERIFY_FAILED.*has SHA-256 .* the manifest states/);
  });
});

describe("verify without its parent", () => {
  it("says that values were not compared, and compares them with one that is named", async () => {
    await rename(parent, join(dir, "moved"));
    expect((await verify(child)).values).toEqual({ unchecked: `the parent cannot be read: ${parent} does not exist` });
    await expect(verify(child, { full: true })).rejects.toThrow(/VERIFY_FAILED.*cannot be compared: the parent cannot be read/);
    const { json } = await runCli(["verify", child, "--parent", join(dir, "moved"), "--full", "--json"]);
    const { bytes, ofBytes } = json["values"] as { bytes: number; ofBytes: number };
    expect(bytes).toBe(ofBytes);
    const { stdout } = await runCli(["verify", child]);
    expect(stdout).toMatch(/values were not compared: the parent cannot be read/);
  });

  it("says so where the parent is another one by now, and refuses another one that is named", async () => {
    await writeCheckpoint(parent, TINY_LLAMA, { seed: 8, files: 3, dtype: "BF16" });
    expect((await verify(child)).values).toEqual({ unchecked: expect.stringMatching(/is not the parent that the child was cut from/) });
    await expect(verify(child, { parent })).rejects.toMatchObject({ code: "CHECKPOINT_MISMATCH", hint: expect.stringMatching(parent) });
    await expect(verify(child, { parent: join(dir, "nowhere") })).rejects.toMatchObject({ code: "PATH_NOT_FOUND" });
  });

  it("says so where there is no manifest", async () => {
    await rm(join(child, "prune_manifest.json"));
    expect(await verify(child)).toMatchObject({ manifest: false, values: { unchecked: "there is no prune_manifest.json" } });
    await expect(verify(child, { rows: 2 })).rejects.toThrow(/VERIFY_FAILED.*has no prune_manifest.json/);
  });
});

it.each([{ rows: 0 }, { rows: 1.5 }, { rows: 2, full: true }])("refuses %j", async (options) => {
  await expect(verify(child, options)).rejects.toMatchObject({ code: "BAD_OPTION" });
});

it("is cancelled between reads", async () => {
  const cancel = new AbortController();
  const onProgress = ({ phase }: { phase: string }): void => {
    if (phase === "comparing") cancel.abort();
  };
  await expect(verify(child, { signal: cancel.signal, onProgress })).rejects.toMatchObject({ code: "CANCELLED" });
});
