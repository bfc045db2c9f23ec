import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  Bridge,
  type CollectSource,
  type LoopModel,
  type OpenedModel,
  type PruneConfig,
  prune,
  python,
  type Tensor,
  tokenBatch,
} from "../../src/index.js";
import { hookPoints } from "../../src/policy/scores.js";
import { calibrationSource } from "../../src/pruning/calibration.js";
import { asFloat32 } from "../../src/tensor.js";
import { BATCHES, WITH_PYTHON } from "../fixtures/calibration.js";
import { temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";

let bridge: Bridge;
beforeAll(async () => {
  bridge = await Bridge.spawn(WITH_PYTHON);
});
afterAll(() => bridge?.close());

const open = async (): Promise<OpenedModel> => bridge.open(await writeCheckpoint(await temporaryFolder()));
const asBatch = (rows: (typeof BATCHES)[number]) => tokenBatch(BigInt64Array.from(rows.flat(), BigInt), rows.length);
const values = (tensor: Tensor): number[] => [...asFloat32(tensor)];

async function runAll(model: LoopModel): Promise<void> {
  for (const rows of BATCHES) await model.forward(rows);
}

async function* texts(): AsyncGenerator<{ text: string; tokens: (typeof BATCHES)[number] }> {
  for (const tokens of BATCHES) yield { text: "unused", tokens };
}

const SOURCES: [string, () => CollectSource | undefined][] = [
  ["nested arrays", () => BATCHES],
  ["batches with a mask that hides nothing", () => BATCHES.map((rows) => [rows, rows.map((row) => row.map(() => 1))])],
  ["an async generator and a collectFunc", () => calibrationSource({ dataLoader: texts(), collectFunc: ({ tokens }) => tokens })],
  ["a forward loop", () => runAll],
  [
    "a forward loop that asks",
    () => async (model) => {
      for (const rows of BATCHES) await model.forward(rows, { returns: "loss" });
    },
  ],
  ["a forward loop that does not wait", () => (model) => Promise.all(BATCHES.map((rows) => model.forward({ input_ids: rows })))],
  [
    "a Python data loader",
    () => calibrationSource({ dataLoader: python("calibration:loader"), collectFunc: python("calibration:collect") }),
  ],
  ["a Python data loader without a collectFunc", () => ({ dataLoader: python("calibration:batches") })],
  ["a Python forward loop", () => calibrationSource({ forwardLoop: python("calibration:forward_loop") })],
];

describe("what a calibration measures", () => {
  it.each(SOURCES)("is bit for bit the same from %s", async (_name, source) => {
    await using model = await open();
    const hooks = hookPoints(model.parent.architecture);
    const expected = await model.collect(hooks, BATCHES.map(asBatch));
    const measured = await model.collect(hooks, source() as CollectSource);
    expect(measured.accumulators).toEqual(expected.accumulators);
    expect(measured).toMatchObject({ batches: 5, samples: 10, tokens: 120 });
    expect(expected).toMatchObject({ batches: 5, samples: 10, tokens: 120 });
  });

  it("is of no more batches than asked for", async () => {
    await using model = await open();
    const hooks = hookPoints(model.parent.architecture);
    const expected = await model.collect(hooks, BATCHES.slice(0, 2));
    for (const dataLoader of [BATCHES, python("calibration:batches")]) {
      const measured = await model.collect(hooks, calibrationSource({ dataLoader, maxIterDataLoader: 2 }) as CollectSource);
      expect(measured.accumulators).toEqual(expected.accumulators);
    }
  });
});

describe("forward", () => {
  it("gives what is asked for, of one batch and in a loop, in the order of its calls", async () => {
    await using model = await open();
    const [first = [], second = []] = BATCHES;
    const logits = await model.forward(first);
    expect(logits).toMatchObject({ dtype: "F32", shape: [2, 12, 50] });
    const last = await model.forward(second, { returns: "last_logits" });
    expect(last).toMatchObject({ dtype: "F32", shape: [2, 50] });
    const whole = values(await model.forward(second));
    expect(values(last)).toEqual([...whole.slice(11 * 50, 12 * 50), ...whole.slice(23 * 50)]);
    const loss = await model.forward(second, { returns: "loss" });
    expect(loss).toBe(await model.loss([second]));

    await model.collect([], async (looped) => {
      const answers = await Promise.all([
        looped.forward(first, { returns: "logits" }),
        looped.forward(first),
        looped.forward(second, { returns: "loss" }),
        looped.forward(second, { returns: "last_logits" }),
      ]);
      expect(answers).toEqual([logits, undefined, loss, last]);
    });
  });

  it("puts logits into the memory that it is given, where that is enough", async () => {
    await using model = await open();
    const [first = [], second = []] = BATCHES;
    const expected = values(await model.forward(second));
    const memory = new Float32Array(2 * 12 * 50 + 1).fill(7);
    const into = memory.subarray(1);
    await model.collect([], async (looped) => {
      const earlier = await looped.forward(first, { returns: "logits", into });
      const logits = await looped.forward(second, { returns: "logits", into });
      expect(logits.data.buffer).toBe(memory.buffer);
      expect(values(logits)).toEqual(expected);
      expect(values(earlier)).toEqual(expected);
    });
    expect(memory[0]).toBe(7);
    const last = await model.forward(second, { returns: "last_logits", into });
    expect(last).toMatchObject({ shape: [2, 50], data: new Uint8Array(memory.buffer, 4, 400) });
    await expect(model.forward(second, { returns: "logits", into: memory.subarray(2) })).rejects.toMatchObject({
      code: "BAD_OPTION",
      detail: "into has 4796 bytes, and logits is F32 [2, 12, 50], 4800 bytes",
    });
    expect(values(await model.forward(second))).toEqual(expected);
  });

  it("hides what an attention mask hides", async () => {
    await using model = await open();
    const shown = await model.forward([[1, 2, 3, 4]], { returns: "last_logits" });
    const args = { input_ids: [[9, 9, 1, 2, 3, 4]], attention_mask: [[0, 0, 1, 1, 1, 1]], position_ids: [[0, 0, 0, 1, 2, 3]] };
    const hidden = values(await model.forward(args, { returns: "last_logits" }));
    for (const [i, value] of values(shown).entries()) expect(hidden[i]).toBeCloseTo(value, 5);
    await expect(model.forward({ input_ids: [[1, 2]], mask: [[1, 1]] })).rejects.toMatchObject({
      code: "BAD_DATA",
      detail: expect.stringMatching(/mask/),
    });
  });
});

describe("loss", () => {
  it("is the same in a loop, and weighs batches by their tokens", async () => {
    await using model = await open();
    const uneven = [BATCHES[0] ?? [], [[1, 2, 3]]];
    const expected = await model.loss(uneven);
    let looped = 0;
    await model.collect([], async (inside) => {
      looped = await inside.loss(uneven);
    });
    expect(looped).toBeCloseTo(expected, 12);
  });
});

describe("score", () => {
  it("is what the function gives, here and in the shim", async () => {
    await using model = await open();
    const here = await model.score(async (scored) => -(await scored.loss(BATCHES)));
    expect(here).toBe(-(await model.loss(BATCHES)));
    expect(await model.score(python("calibration:score"))).toBeCloseTo(here, 5);
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY, undefined, "0.5"])("refuses %s", async (value) => {
    await using model = await open();
    await expect(model.score(() => value as number)).rejects.toMatchObject({
      code: "BAD_OPTION",
      detail: `scoreFunc gave ${value} where a finite number belongs`,
    });
  });
});

describe("prune", () => {
  const mode = [["mcore_gpt_minitron", { hidden_size_divisor: 4, ffn_hidden_size_divisor: 8, num_layers_divisor: 1 }]] as const;
  const calibrations: PruneConfig[] = [
    { dataLoader: BATCHES },
    { forwardLoop: runAll },
    { dataLoader: python("calibration:loader"), collectFunc: python("calibration:collect") },
    { forwardLoop: python("calibration:forward_loop") },
  ];

  it("keeps the same and judges the same candidates, whichever side its functions run on", async () => {
    const outcomes = [];
    for (const [i, calibration] of calibrations.entries()) {
      await using model = await open();
      const scoreFunc: PruneConfig["scoreFunc"] = i % 2 ? python("calibration:score") : async (judged) => -(await judged.loss(BATCHES));
      const { stateDict } = await prune(model, mode, { params: "80%" }, null, { ...calibration, scoreFunc, topK: 3 });
      outcomes.push({ plan: stateDict.plan, scores: stateDict.search?.candidates.map(({ score }) => score) });
    }
    const [first, ...others] = outcomes;
    expect(first?.scores).toHaveLength(3);
    for (const { plan, scores } of others) {
      expect(plan).toEqual(first?.plan);
      for (const [i, score] of (scores ?? []).entries()) expect(score).toBeCloseTo(first?.scores?.[i] ?? Number.NaN, 5);
    }
  });
});

describe("code that brings batches", () => {
  it("is told that running a model of the same shim would wait for ever", async () => {
    await using model = await open();
    await using other = await open();
    await model.load();
    const refused = { code: "BAD_OPTION", detail: expect.stringMatching(/wait for ever/) };
    const reading = async function* () {
      await other.loss(BATCHES);
      yield BATCHES[0] ?? [];
    };
    await expect(model.collect([], reading())).rejects.toMatchObject(refused);
    await expect(model.collect([], () => model.forward([[1, 2]]))).rejects.toMatchObject(refused);
    await expect(model.loss(reading())).rejects.toMatchObject(refused);
    expect(await model.loss(BATCHES)).toBeGreaterThan(0);
  });

  it("may run what it is not waited for by: afterwards, and on another bridge", async () => {
    await using model = await open();
    await using elsewhere = await Bridge.spawn();
    const judge = await elsewhere.open(model.parent.checkpoint.dir);
    let later: Promise<number> | undefined;
    let ended: () => void = () => {};
    const end = new Promise<void>((resolve) => {
      ended = resolve;
    });
    await model.collect([], async (looped) => {
      await looped.forward([[1, 2]]);
      expect(await judge.loss(BATCHES)).toBeGreaterThan(0);
      later = end.then(() => model.loss(BATCHES));
    });
    ended();
    expect(await later).toBe(await judge.loss(BATCHES));
  });
});
