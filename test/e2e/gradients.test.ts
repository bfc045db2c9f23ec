import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { drawBatches } from "../../src/data/toBatches.js";
import {
  Bridge,
  crossEntropy,
  type GradientMask,
  type GradientRequest,
  type LossFunc,
  type OpenedModel,
  type PruneError,
  python,
  type Tensor,
} from "../../src/index.js";
import { asFloat32, bytesOf } from "../../src/tensor.js";
import { BATCHES, WITH_PYTHON } from "../fixtures/calibration.js";
import { temporaryFolder, writeCheckpoint } from "../fixtures/checkpoints.js";

type Rows = (typeof BATCHES)[number];

const MASKS: readonly GradientMask[] = [0, 1, 2].flatMap((layer) => [
  { key: `ffn.${layer}`, module: `model.layers.${layer}.mlp.down_proj`, side: "input" as const, units: 40 },
  { key: `heads.${layer}`, module: `model.layers.${layer}.self_attn.o_proj`, side: "input" as const, units: 6 },
]);

let bridge: Bridge;
beforeAll(async () => {
  bridge = await Bridge.spawn(WITH_PYTHON);
});
afterAll(() => bridge?.close());

const open = async (): Promise<OpenedModel> => bridge.open(await writeCheckpoint(await temporaryFolder(), undefined, { most: 0.5 }));
const source = () => drawBatches(BATCHES);
const failureOf = (work: Promise<unknown>): Promise<PruneError> =>
  work.then(
    () => Promise.reject(new Error("it did not fail")),
    (error) => error,
  );

function idsOf(rows: Rows): Tensor {
  return { dtype: "I64", shape: [rows.length, rows[0]?.length ?? 0], data: bytesOf(BigInt64Array.from(rows.flat(), BigInt)) };
}

const nextToken: LossFunc<Rows> = ({ logits }, rows) => crossEntropy(logits, idsOf(rows), { shift: true });

describe("gradients of masks", () => {
  it("are the same whoever takes the loss and brings the batches", async () => {
    await using model = await open();
    const requests: Omit<GradientRequest<Rows>, "masks">[] = [
      { source: source(), loss: "causal_lm" },
      { source: source(), loss: nextToken },
      { source: source(), loss: async (output, rows) => nextToken(output, rows) },
      { source: source(), loss: python("calibration:loss") },
      { source: { dataLoader: python("calibration:labelled") }, loss: python("calibration:loss") },
      { source: { dataLoader: python("calibration:labelled") }, loss: "causal_lm" },
    ];
    const [first, ...others] = await Promise.all(requests.map((request) => model.collectGradients({ masks: MASKS, ...request })));
    expect(first?.collected).toMatchObject({ batches: 5, samples: 10, tokens: 120 });
    expect(first?.collected.loss).toBeCloseTo(await model.loss(BATCHES), 5);
    for (const { key, units } of MASKS) {
      const sums = asFloat32(first?.tensors.get(key) as Tensor);
      expect(sums.length).toBe(units);
      expect(Math.max(...sums)).toBeGreaterThan(1e-9);
      for (const other of others) {
        const found = asFloat32(other.tensors.get(key) as Tensor);
        for (const [unit, sum] of sums.entries()) expect(Math.abs((found[unit] ?? 0) / sum - 1)).toBeLessThan(1e-3);
      }
    }
    for (const { collected } of others) expect(collected.loss).toBeCloseTo(first?.collected.loss ?? Number.NaN, 5);
  });

  it("are of exactly as many batches as were asked for", async () => {
    await using model = await open();
    let drawn = 0;
    const endless = (async function* () {
      for (;;) yield BATCHES[drawn++ % BATCHES.length] as Rows;
    })();
    const taken = drawBatches(endless, { maxBatches: 3 });
    const { collected } = await model.collectGradients({ masks: MASKS, source: taken, loss: nextToken });
    expect([collected.batches, drawn]).toEqual([3, 3]);
    const data = { dataLoader: python("calibration:batches"), maxBatches: 2 };
    expect((await model.collectGradients({ masks: MASKS, source: data, loss: "causal_lm" })).collected.batches).toBe(2);
  });

  it.each<[string, LossFunc<Rows>, object]>([
    [
      "what a loss function throws, as it is",
      () => {
        throw new RangeError("no such teacher");
      },
      { message: "no such teacher" },
    ],
    ["a loss that is no number", () => ({ loss: "1" }) as never, { code: "BAD_OPTION", detail: /no \{ loss, gradient \} for batch 0/ }],
    [
      "a gradient of what the model does not return",
      ({ logits }) => ({ loss: 1, gradient: { logit: logits as Tensor } }),
      { code: "BAD_OPTION", detail: /a gradient of logit for batch 0/, hint: "it returns logits" },
    ],
    [
      "a gradient of another shape",
      ({ logits }) => ({ loss: 1, gradient: { ...(logits as Tensor), shape: [2, 12, 49] } }),
      { code: "BAD_OPTION", detail: /F32 \[2, 12, 49\] for batch 0 as the gradient of logits, F32 \[2, 12, 50\]/ },
    ],
    [
      "a loss that is not finite",
      ({ logits }) => ({ loss: Number.NaN, gradient: logits as Tensor }),
      { code: "BAD_DATA", detail: /the loss of batch 0 is nan/ },
    ],
    [
      "a gradient that is not finite",
      ({ logits }) => ({ loss: 1, gradient: { ...(logits as Tensor), data: bytesOf(new Float32Array(1200).fill(Number.NaN)) } }),
      { code: "BAD_DATA", detail: /gradient of logits of batch 0 is not finite/ },
    ],
  ])("tell %s", async (_name, loss, expected) => {
    await using model = await open();
    const error = await failureOf(model.collectGradients({ masks: MASKS, source: source(), loss }));
    for (const [field, value] of Object.entries(expected)) {
      if (value instanceof RegExp) expect(error[field as keyof PruneError]).toMatch(value);
      else expect(error[field as keyof PruneError]).toBe(value);
    }
    expect(await model.loss(BATCHES)).toBeGreaterThan(0);
  });

  it("let go of the data loader when they are cancelled while a loss is awaited", async () => {
    await using model = await open();
    const stop = new AbortController();
    let returned: () => void = () => {};
    const letGo = new Promise<void>((resolve) => {
      returned = resolve;
    });
    async function* data(): AsyncGenerator<Rows> {
      try {
        for (const rows of BATCHES) yield rows;
      } finally {
        returned();
      }
    }
    const loss: LossFunc<Rows> = () => {
      stop.abort();
      return new Promise(() => {});
    };
    const work = model.collectGradients({ masks: MASKS, source: drawBatches(data()), loss }, { signal: stop.signal });
    expect(await failureOf(work)).toMatchObject({ code: "CANCELLED" });
    await letGo;
  });

  it("refuse Python functions that are not allowed, before anything is loaded", async () => {
    await using model = await open();
    const denied = { code: "PYTHON_DENIED" };
    const loss = python("somewhere:loss");
    expect(await failureOf(model.collectGradients({ masks: MASKS, source: source(), loss }))).toMatchObject(denied);
    const data = { dataLoader: python("somewhere:batches") };
    expect(await failureOf(model.collectGradients({ masks: MASKS, source: data, loss: "causal_lm" }))).toMatchObject(denied);
  });
});
