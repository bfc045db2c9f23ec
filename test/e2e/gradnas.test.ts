import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  Bridge,
  crossEntropy,
  type GradnasConfig,
  inspect,
  type NamedArgs,
  type OpenedModel,
  outline,
  outlineSearch,
  prune,
  python,
  readParent,
  tensor,
  verify,
} from "../../src/index.js";
import { type Config, temporaryFolder, writeCheckpoint, writeTokens } from "../fixtures/checkpoints.js";
import { type CliResult, runCli } from "../fixtures/cli.js";
import { relativeDifference } from "../fixtures/cutting.js";
import { IMPLIED_HEADS, TINY } from "../fixtures/families.js";
import { FINE } from "../fixtures/gradients.js";
import { type Reference, spelledOut, startReference } from "../fixtures/reference.js";

const GROUPED: Config = { ...TINY.llama, num_attention_heads: 8, num_key_value_heads: 2, head_dim: 4, num_hidden_layers: 3 };
const MODELS: readonly (readonly [name: string, config: Config, loss: GradnasConfig["lossFunc"]])[] = [
  ["bertMaskedLm", IMPLIED_HEADS.bertMaskedLm, "masked_lm"],
  ["bertClassifier", IMPLIED_HEADS.bertClassifier, "sequence_classification"],
  ["gptj", IMPLIED_HEADS.gptj, "causal_lm"],
  ["llama", GROUPED, "causal_lm"],
  ["qwen3", TINY.qwen3, "causal_lm"],
];

let bridge: Bridge;
let reference: Reference;
beforeAll(async () => {
  bridge = await Bridge.spawn({ env: { OMP_NUM_THREADS: "1" } });
  reference = startReference();
});
afterAll(async () => {
  await reference?.stop();
  await bridge?.close();
});

const rows = (batch: number): number[][] =>
  [0, 1].map((row) => Array.from({ length: 6 }, (_, position) => (7 * batch + 5 * row + 3 * position) % 40));

/** Batches with the labels that a loss takes. */
function batchesFor(loss: unknown, count = 3): NamedArgs[] {
  return Array.from({ length: count }, (_, batch) => {
    const input_ids = rows(batch);
    if (loss === "masked_lm") return { input_ids, labels: rows(batch + 1) };
    if (loss === "sequence_classification") return { input_ids, labels: tensor(BigInt64Array.of(BigInt(batch % 3), 1n), [2]) };
    return { input_ids };
  });
}

async function open(config: Config): Promise<OpenedModel> {
  return bridge.open(await writeCheckpoint(join(await temporaryFolder(), "parent"), config, { most: 0.5 }));
}

describe.each(MODELS)("%s", (_name, config, lossFunc) => {
  const dataLoader = batchesFor(lossFunc);

  it("has layers of sizes of their own, live and saved", async () => {
    await using model = await open(config);
    const { subnet, stateDict } = await prune(model, [["gradnas", FINE]], { params: "75%" }, null, { lossFunc, dataLoader });
    expect(subnet).toBe(model);
    expect(stateDict.costs.child.params).toBeLessThanOrEqual(0.75 * stateDict.costs.parent.params);
    expect(new Set(stateDict.plan.layers?.map((sizes) => JSON.stringify(sizes))).size).toBeGreaterThan(1);
    const { logits: live = tensor(Float32Array.of(), [0]) } = await subnet.outputs(rows(9));
    const child = join(await temporaryFolder(), "child");
    await subnet.save(child);

    expect(await readdir(child)).not.toContain("config.json");
    await using loaded = await bridge.load({ checkpoint: child });
    expect(relativeDifference(await loaded.output({ input_ids: rows(9) }), live)).toBeLessThan(1e-5);
    const kept = spelledOut(model.parent, stateDict.plan);
    expect(await reference.check({ parent: model.parent.checkpoint.dir, child, kept, masked: true })).toBe("ok");
    const { inspection, values } = await verify(child, { full: true });
    expect(inspection.params).toBe(stateDict.plan.child.params);
    expect(values).toMatchObject({ bytes: (values as { ofBytes?: number }).ofBytes });
  });

  it("keeps layers alike for plain transformers", async () => {
    await using model = await open(config);
    const { subnet, stateDict } = await prune(model, { gradnas: { ...FINE, uniform: true } }, { flops: "85%" }, rows(0), {
      lossFunc,
      dataLoader,
    });
    const child = join(await temporaryFolder(), "child");
    await subnet.save(child);
    const kept = spelledOut(model.parent, stateDict.plan);
    expect(await reference.check({ parent: model.parent.checkpoint.dir, child, kept, masked: true })).toBe("ok");
    expect((await inspect(child)).params).toBe(stateDict.plan.child.params);
    expect(stateDict.costs.child.flops).toBeLessThanOrEqual(0.85 * stateDict.costs.parent.flops);
  });
});

it("opens BERT with what pretraining had on top, which its config does not name", async () => {
  const config = IMPLIED_HEADS.bertMaskedLm;
  const parent = await writeCheckpoint(join(await temporaryFolder(), "parent"), { ...config, architectures: ["BertForPreTraining"] });
  await writeFile(join(parent, "config.json"), JSON.stringify(config));
  await using model = await bridge.open(parent);
  expect(Object.keys(await model.outputs(rows(0)))).toEqual(["logits"]);
});

describe("what was summed", () => {
  const config = IMPLIED_HEADS.bertMaskedLm;
  const options = [["gradnas", FINE]] as const;
  const lossFunc = "masked_lm";
  const selected = async (given: Partial<GradnasConfig>, constraint = "75%"): Promise<unknown> => {
    await using model = await open(config);
    const { stateDict } = await prune(model, options, { params: constraint }, null, {
      lossFunc,
      dataLoader: batchesFor(lossFunc, 5),
      ...given,
    });
    return stateDict.best;
  };

  it("is stored in steps: a run that ended early goes on, and comes to the same", async () => {
    const checkpoint = await temporaryFolder();
    const seen: number[] = [];
    const failing = {
      async *[Symbol.asyncIterator]() {
        for (const [number, batch] of batchesFor(lossFunc, 5).entries()) {
          if (number === 4) throw new Error("the disk went away");
          yield batch;
        }
      },
    };
    const kept = { checkpoint, checkpointEvery: 2 };
    await expect(selected({ ...kept, dataLoader: failing })).rejects.toThrow("the disk went away");
    expect(await readdir(checkpoint)).toEqual(["gradients.partial.safetensors"]);
    const resumed = await selected({
      ...kept,
      onProgress: ({ phase, done }) => phase === "collecting gradients" && seen.push(done),
    });
    expect(Math.min(...seen)).toBeGreaterThanOrEqual(4);
    const once = await selected({});
    expect(resumed).toMatchObject({ sizes: (once as { sizes: object }).sizes });
  });

  it("serves another constraint without a pass, and no other loss or data", async () => {
    const checkpoint = await temporaryFolder();
    await selected({ checkpoint });
    const seen: string[] = [];
    const onProgress = ({ phase }: { phase: string }): unknown => seen.push(phase);
    const fresh = await selected({}, "60%");
    expect(await selected({ checkpoint, onProgress }, "60%")).toEqual(fresh);
    expect(seen).toEqual([]);
    await expect(selected({ checkpoint, dataLoader: batchesFor(lossFunc, 4) })).rejects.toThrow(/CHECKPOINT_MISMATCH.*data loader has 4/);
    await expect(selected({ checkpoint, lossFunc: "causal_lm" })).rejects.toThrow(
      /CHECKPOINT_MISMATCH.*measured with loss masked_lm, not causal_lm/,
    );
  });

  it("is of exactly as many batches as are asked for", async () => {
    let drawn = 0;
    const endless = {
      *[Symbol.iterator]() {
        for (;;) yield batchesFor(lossFunc, 1)[drawn++ * 0] as NamedArgs;
      },
    };
    await selected({ dataLoader: endless, maxIterDataLoader: 7 });
    expect(drawn).toBe(7);
  });

  it("is the same by a loss of one's own", async () => {
    const own = await selected({
      lossFunc: (output, batch) => {
        const { labels } = batch as { labels: number[][] };
        return crossEntropy(output["logits"], tensor(BigInt64Array.from(labels.flat(), BigInt), [2, 6]));
      },
    });
    const builtIn = (await selected({})) as { sizes: object; score: number };
    expect(own).toMatchObject({ sizes: builtIn.sizes, score: expect.closeTo(builtIn.score, 4) });
  });
});

describe("an error", () => {
  const LLAMA = TINY.llama;
  const lossFunc = "causal_lm";
  const dataLoader = batchesFor(lossFunc);
  const attempt = async (
    config: Config,
    given: object,
    { mode = [["gradnas", FINE]] as unknown, constraints = { params: "75%" } as Record<string, unknown> } = {},
  ): Promise<unknown> => {
    await using model = await open(config);
    return await prune(model, mode as "gradnas", constraints, null, { lossFunc, dataLoader, ...given } as GradnasConfig);
  };

  it.each<[what: string, config: Config, given: object, says: RegExp]>([
    ["no loss", LLAMA, { lossFunc: undefined }, /BAD_OPTION.*needs a lossFunc[\s\S]*"causal_lm"/],
    ["no loader", LLAMA, { dataLoader: undefined }, /BAD_OPTION.*needs a dataLoader/],
    ["an unknown loss", LLAMA, { lossFunc: "hinge" }, /BAD_OPTION.*lossFunc must be a function.*causal_lm, masked_lm/],
    ["a score function", LLAMA, { scoreFunc: () => 1 }, /BAD_OPTION.*gradnas has no scoreFunc/],
    ["a loop", LLAMA, { forwardLoop: () => {} }, /BAD_OPTION.*gradnas has no forwardLoop/],
    [
      "a loss here of data there",
      LLAMA,
      { lossFunc: () => {}, dataLoader: python("a:b") },
      /BAD_OPTION.*dataLoader is a Python function and lossFunc is not/,
    ],
    ["steps without a folder", LLAMA, { checkpointEvery: 2 }, /BAD_OPTION.*checkpointEvery without a checkpoint/],
    ["an unknown option", LLAMA, { topK: 3 }, /BAD_OPTION.*topK[\s\S]*lossFunc/],
    [
      "a loss that is not scalar",
      LLAMA,
      { lossFunc: () => ({ loss: [1], gradient: {} }) },
      /BAD_OPTION.*no \{ loss, gradient \} for batch 0/,
    ],
    [
      "a loss that is not a number",
      LLAMA,
      { lossFunc: ({ logits }: { logits: never }) => ({ loss: Number.NaN, gradient: logits }) },
      /BAD_DATA.*loss of batch 0 is nan/i,
    ],
    ["labels that are missing", IMPLIED_HEADS.bertMaskedLm, { lossFunc: "masked_lm" }, /BAD_DATA.*batch 0.*labels/],
    ["a family without masks", TINY.mixtral, {}, /BAD_MODE.*no masks for the family mixtral/],
  ])("says what is wrong of %s", async (_what, config, given, says) => {
    await expect(attempt(config, given)).rejects.toThrow(says);
  });

  it("names the batch and the module whose gradients are not finite", async () => {
    const logits = (scale: number) => (output: Record<string, { shape: number[] }>, batch: unknown) => {
      const { shape = [] } = output["logits"] ?? {};
      const values = new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(batch === dataLoader[1] ? scale : 1);
      return { loss: 1, gradient: tensor(values, shape) };
    };
    await expect(attempt(LLAMA, { lossFunc: logits(3e38) })).rejects.toThrow(/BAD_DATA.*batch 1/);
  });

  it.each<[constraints: Record<string, unknown>, says: RegExp]>([
    [{}, /takes exactly one constraint, and none is given/],
    [{ params: "70%", flops: "70%" }, /takes exactly one constraint, and params and flops are given/],
    [{ params: "1%" }, /params \d+(\.\d+)? cannot be met: the smallest network has \d+/],
    [{ flops: "70%" }, /dummyInput is missing/],
    [{ export_config: {} }, /knows no constraint export_config/],
  ])("says what is wrong of the constraints %j, before anything is drawn", async (constraints, says) => {
    let drawn = 0;
    const watched = {
      *[Symbol.iterator]() {
        drawn += 1;
        yield* dataLoader;
      },
    };
    await expect(attempt(LLAMA, { dataLoader: watched }, { constraints })).rejects.toThrow(says);
    expect(drawn).toBe(0);
  });

  it("says that a model with nothing to cut has nothing to cut", async () => {
    const mode = [["gradnas", { "nn.Linear": { "*": null }, attention: { "*": null } }]];
    await expect(attempt(LLAMA, {}, { mode })).rejects.toThrow(/BAD_OPTION.*no layer of this llama can be cut/);
  });

  it("says how to open a child whose layers have sizes of their own, and that it cannot be pruned again", async () => {
    await using model = await open(LLAMA);
    const { subnet, stateDict } = await prune(model, [["gradnas", FINE]], { params: "75%" }, null, { lossFunc, dataLoader });
    const child = join(await temporaryFolder(), "child");
    await subnet.save(child);
    await expect(bridge.open(child)).rejects.toThrow(/NOT_A_CHECKPOINT.*sizes of their own[\s\S]*bridge\.load/);
    expect((await inspect(child)).layers).toEqual(stateDict.plan.layers);
    const parent = await readParent(child);
    expect(() => outline(parent, { ffn_hidden_size: 8 })).toThrow(/BAD_CONFIG.*sizes of their own/);
    expect(() => outlineSearch(parent, { params: "50%" })).toThrow(/BAD_CONFIG.*sizes of their own/);
    await expect(prune(subnet, "gradnas", { params: "75%" }, null, { lossFunc, dataLoader })).rejects.toThrow(/pruned already/);
  });

  it("says that layouts of Megatron have no layers of sizes of their own", async () => {
    await using model = await open(LLAMA);
    const { subnet } = await prune(model, [["gradnas", FINE]], { params: "75%" }, null, { lossFunc, dataLoader });
    const child = join(await temporaryFolder(), "child");
    await expect(subnet.save(child, { layout: "megatron" })).rejects.toThrow(/BAD_OPTION.*cannot be laid out as megatron/);
    await expect(readdir(child)).rejects.toThrow();
  });
});

describe("the command line", () => {
  const prune = async (...flags: string[]): Promise<CliResult & { child: string }> => {
    const dir = await temporaryFolder();
    const parent = await writeCheckpoint(join(dir, "parent"), { ...TINY.llama, intermediate_size: 96 });
    const data = await writeTokens(join(dir, "tokens.safetensors"), [2, 2, 8], (i) => (i * 7) % 40);
    const child = join(dir, "child");
    const result = await runCli(["prune", parent, "--out", child, "--mode", "gradnas", "--data", data, "--device", "cpu", ...flags]);
    return { ...result, child };
  };

  it("prunes by a loss and a bound", async () => {
    const { exitCode, json, child } = await prune("--loss", "causal_lm", "--params", "80%", "--uniform", "--json");
    expect(exitCode).toBe(0);
    expect((await inspect(child)).params).toBe((json as { costs: { child: { params: number } } }).costs.child.params);
  });

  it.each<[flags: string[], says: RegExp]>([
    [["--params", "80%"], /needs a --loss/],
    [["--loss", "hinge", "--params", "80%"], /--loss hinge is unknown[\s\S]*causal_lm/],
    [["--loss", "masked_lm", "--params", "80%"], /--loss masked_lm goes by labels, and --data has none[\s\S]*--data-loader/],
    [["--loss", "causal_lm", "--params", "80%", "--layout", "megatron"], /cannot be laid out as megatron[\s\S]*--uniform/],
    [["--loss", "causal_lm", "--params", "80%", "--top-k", "3"], /does not use --top-k/],
    [["--loss", "causal_lm", "--params", "80%", "--mode", "mcore_minitron"], /mcore_minitron does not use --loss/],
    [["--loss", "causal_lm", "--params", "80%", "--mode", "fastnas"], /fastnas prunes networks that Python code builds/],
  ])("refuses %j before any work", async (flags, says) => {
    const { exitCode, stderr } = await prune(...flags);
    expect(stderr).toMatch(says);
    expect(exitCode).toBe(2);
  });

  it("refuses the model of a job before it dials", async () => {
    const { exitCode, stderr } = await runCli([
      "prune",
      "--out",
      "child",
      "--mode",
      "gradnas",
      "--attach",
      "localhost:1",
      "--loss",
      "causal_lm",
    ]);
    expect(stderr).toMatch(/prunes a checkpoint, and no model of a job/);
    expect(exitCode).toBe(2);
  });
});
