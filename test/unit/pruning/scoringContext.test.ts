import { appendFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { negativeLoss, python, type RunnableModel, readParent, type ScoreFile } from "../../../src/index.js";
import { contextOf } from "../../../src/pruning/scoringContext.js";
import { temporaryFolder, writeCheckpoint } from "../../fixtures/checkpoints.js";

const accumulated = (value: number): ScoreFile => ({
  accumulators: new Map([["layer_scores", { shape: [1], data: Float32Array.of(value) }]]),
  fingerprint: undefined,
  provenance: {},
});
const byLoss = (model: RunnableModel): Promise<number> => model.loss([[1]]);
const bySize = (model: RunnableModel): number => model.hyperparameters.hidden_size;

it("is the same for the same, and another for another network, dtype, ranking or function", async () => {
  const dir = await temporaryFolder();
  const parent = await readParent(await writeCheckpoint(join(dir, "a")));
  const other = await readParent(await writeCheckpoint(join(dir, "b"), undefined, { seed: 2 }));
  const context = (): Promise<string> => contextOf({ parent, dtype: "auto" }, byLoss, accumulated(1));
  expect(await context()).toBe(await context());
  const contexts = await Promise.all([
    context(),
    contextOf({ parent: other, dtype: "auto" }, byLoss, accumulated(1)),
    contextOf({ parent, dtype: "bfloat16" }, byLoss, accumulated(1)),
    contextOf({ parent, dtype: "auto" }, byLoss, accumulated(2)),
    contextOf({ parent, dtype: "auto" }, byLoss, undefined),
    contextOf({ parent, dtype: "auto" }, bySize, accumulated(1)),
    contextOf({ parent, dtype: "auto" }, python("a:b"), accumulated(1)),
    contextOf({ parent, dtype: "auto" }, python("a:c"), accumulated(1)),
  ]);
  expect(new Set(contexts).size).toBe(contexts.length);
});

it("knows a bound function by nothing, and a built-in one by its data", async () => {
  const dir = await temporaryFolder();
  const parent = await readParent(await writeCheckpoint(dir));
  const model = { parent, dtype: "auto" };
  const bound = byLoss.bind(undefined);
  expect(await contextOf(model, bound, undefined)).not.toBe(await contextOf(model, bound, undefined));

  const path = join(dir, "held-out.txt");
  await writeFile(path, "one");
  const tokenizing = (shift: number): Parameters<typeof negativeLoss>[1] => ({
    hyperparameters: parent.architecture.hyperparameters,
    tokenize: async (texts) => BigInt64Array.from([...texts.join("")], (letter) => BigInt((letter.charCodeAt(0) + shift) % 50)),
  });
  const tokenizer = tokenizing(0);
  const context = (options?: { seqLength?: number; samples?: number }): Promise<string> =>
    contextOf(model, negativeLoss(path, tokenizer, options), undefined);
  const before = await context();
  expect(await context({ seqLength: 4096 })).toBe(before);
  expect(await context({ seqLength: 1 })).not.toBe(before);
  expect(await contextOf(model, negativeLoss(path, tokenizing(1)), undefined)).not.toBe(before);
  await appendFile(path, " more");
  expect(await context()).not.toBe(before);
});
