import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { checkInputs, type PruneFlags } from "../../../src/cli/pruneInputs.js";
import { type Parent, readParent, search } from "../../../src/index.js";
import { type Config, TINY_LLAMA, temporaryFolder, writeScores } from "../../fixtures/checkpoints.js";
import { hybrid, NANO_9B } from "../../fixtures/published.js";

const NANO = hybrid(NANO_9B, 4480, 15680, 40, 8, 128, 80);

let dir: string;
beforeEach(async () => {
  dir = await temporaryFolder();
});

async function parentOf(config: Config): Promise<Parent> {
  const path = join(dir, "config.json");
  await writeFile(path, JSON.stringify(config));
  return readParent(path);
}

/** Flags that name a checkpoint folder, which may hold scores: nothing else has to be given. */
function flags(given: Partial<PruneFlags>): PruneFlags {
  const batches = { samples: 8, batchSize: 1, device: "cpu", dtype: "auto" } as const;
  return { ...batches, out: join(dir, "child"), mode: "mcore_gpt_minitron", checkpoint: join(dir, "run"), ...given };
}

const planted = (config: Config, importance: (name: string, i: number) => number): Promise<string> =>
  writeScores(join(dir, "scores.safetensors"), config, importance);

describe("bounds on a hybrid", () => {
  const long = { metricSeqLength: 131_072, metricBatchSize: 64 };

  it("are taken where some choice of layers meets them, and no candidate is told before scores have chosen", async () => {
    const parent = await parentOf(NANO);
    expect(() => search(parent, { memory_mb: 100_000 }, { seqLength: 131_072, batchSize: 64 })).toThrow(
      /the smallest subnet of the space has 138,224.*, if the first layers stay/,
    );
    const { target } = await checkInputs(parent, flags({ ...long, memoryMb: 100_000 }));
    expect(target).toMatchObject({ kind: "bounds", found: { limits: { memory_mb: 100_000 }, warnings: [] } });
    expect(target).not.toHaveProperty("found.feasible");
    expect(target).not.toHaveProperty("found.candidates");
  });

  it("are refused where no choice of layers meets them", async () => {
    await expect(checkInputs(await parentOf(NANO), flags({ ...long, memoryMb: 6_000 }))).rejects.toMatchObject({
      code: "BAD_CONSTRAINTS",
      detail: expect.stringMatching(/^memory_mb <= 6,000 cannot be met: .*, whichever layers stay$/),
    });
  });

  it("are met by the layers that given scores keep", async () => {
    // Attention layers, whose caches are nearly all of the memory, matter the most, or the least.
    const layers = (attention: number) => (name: string, i: number) => (name === "layer_scores" && NANO_9B[i] === "*" ? attention : 1);
    const parent = await parentOf(NANO);
    const bounded = { ...long, memoryMb: 130_000 };
    const dear = flags({ ...bounded, scores: await planted(NANO, layers(2)) });
    await expect(checkInputs(parent, dear)).rejects.toMatchObject({
      code: "BAD_CONSTRAINTS",
      detail: expect.stringMatching(/cannot be met: the smallest subnet of the space has [\d,.]+$/),
    });
    const cheap = flags({ ...bounded, scores: await planted(NANO, layers(0)) });
    const { target } = await checkInputs(parent, cheap);
    expect(target).toMatchObject({ kind: "bounds", found: { feasible: expect.any(Number), candidates: expect.any(Array) } });
  });
});

describe("a score file under bounds", () => {
  const bounded = { params: "90%", hiddenSizeDivisor: 8, ffnHiddenSizeDivisor: 8, numLayersDivisor: 1 };

  it("is refused where it is not of this network", async () => {
    const scores = await planted({ ...TINY_LLAMA, num_hidden_layers: 2 }, (_, i) => i);
    await expect(checkInputs(await parentOf(TINY_LLAMA), flags({ ...bounded, scores }))).rejects.toMatchObject({ code: "BAD_SCORES" });
  });

  it("is refused for what only a candidate that is judged is ranked by", async () => {
    const scores = await planted(TINY_LLAMA, (name, i) => (name === "decoder.layers.1.mlp" ? Number.NaN : i));
    const parent = await parentOf(TINY_LLAMA);
    const given = flags({ ...bounded, scores });
    // The largest candidate keeps the parent's FFN width, and the next one does not.
    const { target } = await checkInputs(parent, given);
    expect(target).toMatchObject({
      found: { candidates: [{ exportConfig: { ffn_hidden_size: 40 } }, { exportConfig: { ffn_hidden_size: 32 } }] },
    });
    await expect(checkInputs(parent, { ...given, scoreFunc: "calibration:score" })).rejects.toMatchObject({
      code: "BAD_SCORES",
      detail: expect.stringMatching(/decoder.layers.1.mlp\[0\] is NaN/),
    });
  });

  it("is read before anything starts", async () => {
    const scores = join(dir, "nowhere.safetensors");
    await expect(checkInputs(await parentOf(TINY_LLAMA), flags({ ...bounded, scores }))).rejects.toMatchObject({ code: "PATH_NOT_FOUND" });
  });
});

describe("what only a search uses", () => {
  it.each<[Partial<PruneFlags>, RegExp]>([
    [{ scoreFunc: "calibration:score" }, /uses --score-func$/],
    [{ scoreData: "held-out.jsonl" }, /uses --score-data$/],
    [{ topK: 3, maxWidthPruning: 0.1 }, /uses --top-k and --max-width-pruning$/],
    [{ maxDepthPruning: 0.1 }, /uses --max-depth-pruning$/],
    [{ hparamsToSkip: ["hidden_size"] }, /uses --hparams-to-skip$/],
    [{ ffnHiddenSizeDivisor: 8 }, /uses --ffn-hidden-size-divisor$/],
    [{ hiddenSizeDivisor: 8, mambaHeadDimDivisor: 8 }, /uses --hidden-size-divisor and --mamba-head-dim-divisor$/],
    [{ numMoeExpertsDivisor: 8, numLayersDivisor: 8 }, /uses --num-moe-experts-divisor and --num-layers-divisor$/],
  ])("is refused beside --export-config: %j", async (given, detail) => {
    const sizes = flags({ exportConfig: '{"hidden_size": 16}' });
    const parent = await parentOf(TINY_LLAMA);
    expect((await checkInputs(parent, sizes)).target.kind).toBe("sizes");
    await expect(checkInputs(parent, { ...sizes, ...given })).rejects.toMatchObject({
      code: "BAD_OPTION",
      detail: expect.stringMatching(detail),
    });
  });
});
