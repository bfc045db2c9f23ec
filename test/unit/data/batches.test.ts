import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { BATCH_DEFAULTS, batchesOf, readCalibrationData, textBatches } from "../../../src/data/batches.js";
import { packTokens } from "../../../src/data/pack.js";
import { asBigInt64, type Batch } from "../../../src/tensor.js";
import { temporaryFolder, writeTokens } from "../../fixtures/checkpoints.js";

const ids = (length: number): BigInt64Array => BigInt64Array.from({ length }, (_, i) => BigInt(i));
const content = (batches: readonly Batch[]): { shape: readonly number[]; first: bigint | undefined }[] =>
  batches.map(({ input_ids }) => ({ shape: input_ids?.shape ?? [], first: input_ids && asBigInt64(input_ids)[0] }));

describe("packTokens", () => {
  it("cuts sequences without padding and drops the rest", () => {
    expect(content(packTokens(ids(23), { seqLength: 5, batchSize: 3, samples: 100 }))).toEqual([
      { shape: [3, 5], first: 0n },
      { shape: [1, 5], first: 15n },
    ]);
  });
  it("takes no more than the samples asked for", () => {
    expect(content(packTokens(ids(100), { seqLength: 5, batchSize: 2, samples: 3 }))).toEqual([
      { shape: [2, 5], first: 0n },
      { shape: [1, 5], first: 10n },
    ]);
  });
  it("makes one sequence of a text that is shorter than one", () => {
    expect(content(packTokens(ids(3), { seqLength: 5, batchSize: 2, samples: 9 }))).toEqual([{ shape: [1, 3], first: 0n }]);
  });
  it("makes nothing of nothing", () => {
    expect(packTokens(ids(0), { seqLength: 5, batchSize: 2, samples: 9 })).toEqual([]);
  });
});

describe("a data file", () => {
  it("with [batches, B, S] gives its batches as they stand", async () => {
    const path = await writeTokens(join(await temporaryFolder(), "x.safetensors"), [3, 2, 4], (i) => i);
    const data = await readCalibrationData(path, 24, { ...BATCH_DEFAULTS, batchSize: 7, samples: 1 });
    expect(data.kind === "tokens" && content(data.batches)).toEqual([
      { shape: [2, 4], first: 0n },
      { shape: [2, 4], first: 8n },
      { shape: [2, 4], first: 16n },
    ]);
  });

  it("with [N, S] is split by the batch size", async () => {
    const path = await writeTokens(join(await temporaryFolder(), "x.safetensors"), [5, 4], (i) => i);
    const data = await readCalibrationData(path, 20, { ...BATCH_DEFAULTS, batchSize: 2 });
    expect(data.kind === "tokens" && data.batches.map(({ input_ids }) => input_ids?.shape)).toEqual([
      [2, 4],
      [2, 4],
      [1, 4],
    ]);
  });

  it("of text is tokenized by the model and cut", async () => {
    const path = join(await temporaryFolder(), "x.jsonl");
    await writeFile(path, '{"text": "ab"}\n\n{"text": "c", "source": "x"}\n');
    const seen: string[] = [];
    const model = {
      hyperparameters: { vocab_size: 50 },
      tokenize: async (texts: readonly string[]) => {
        seen.push(...texts);
        return ids(10);
      },
    };
    const batches: Batch[] = [];
    const source = textBatches(path, model, { seqLength: 4, batchSize: 2 });
    expect(source.size).toBeUndefined();
    for await (const batch of source) batches.push(batch);
    expect(source.size).toBe(1);
    expect(seen).toEqual(["ab", "c"]);
    expect(content(batches)).toEqual([{ shape: [2, 4], first: 0n }]);
  });

  it.each([{ batchSize: 0 }, { seqLength: -1 }, { samples: 1.5 }, { batchSize: Number.NaN }])("of %j is refused at once", (wrong) => {
    const model = { hyperparameters: { vocab_size: 50 }, tokenize: async () => ids(10) };
    const [[name = "", size] = []] = Object.entries(wrong);
    expect(() => textBatches("no-such-file.txt", model, wrong)).toThrow(`${name} is ${size}; it must be a whole number`);
  });

  it("whose texts have no tokens is refused", async () => {
    const none = batchesOf({ kind: "texts", texts: ["x"] }, { tokenize: async () => ids(0) }, BATCH_DEFAULTS);
    const draw = async (): Promise<void> => {
      for await (const batch of none) expect(batch).toBeUndefined();
    };
    await expect(draw()).rejects.toThrow(/no tokens/);
  });

  it.each([
    ["x.jsonl", '{"text": 1}\n', /x.jsonl:1 has no string "text"/],
    ["x.jsonl", '{"text": "a"}\n{oops\n', /x.jsonl:2 is not JSON/],
    ["x.csv", "a,b", /end in .safetensors, .jsonl or .txt/],
    ["x.txt", "  \n", /holds no text/],
  ])("%s with %j is refused", async (name, text, message) => {
    const path = join(await temporaryFolder(), name);
    await writeFile(path, text);
    await expect(readCalibrationData(path, 50, BATCH_DEFAULTS)).rejects.toThrow(message);
  });
});
