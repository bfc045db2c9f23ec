import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { asFloat32, Bridge, type NetworkModel, prune, type RunnableNetwork, type Tensor, tensor } from "../../src/index.js";
import { temporaryFolder } from "../fixtures/checkpoints.js";
import { largestDifference, readTensor } from "../fixtures/goldens.js";

const FOLDER = join(dirname(fileURLToPath(import.meta.url)), "fastnas-resnet");
// The reference keeps "down" at its size.
const MODE = { fastnas: { "nn.Conv2d": { "*": { channel_divisor: 8 }, down: null }, "nn.Linear": { "*": { feature_divisor: 8 } } } };

interface GoldenCase {
  readonly constraint: Readonly<Record<string, string>>;
  readonly best_config: Readonly<Record<string, number>>;
  readonly best_metric: number;
  readonly best_constraints: { readonly flops: number };
  readonly sensitivity_map: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly params: number;
  readonly score_after: number;
}

let bridge: Bridge;
let cases: Readonly<Record<string, GoldenCase>>;
let images: Tensor;
let image: Tensor;
beforeAll(async () => {
  cases = JSON.parse(await readFile(join(FOLDER, "case.json"), "utf8")) as typeof cases;
  images = await readTensor(join(FOLDER, "data.safetensors"), "x");
  image = tensor(asFloat32(images).slice(0, 3 * 16 * 16), [1, 3, 16, 16]);
  bridge = await Bridge.spawn({ allowPython: [FOLDER] });
});
afterAll(() => bridge?.close());

const load = (): Promise<NetworkModel> => bridge.load({ entrypoint: "model:build", weights: join(FOLDER, "weights.safetensors") });

/** The score of the golden: how far the logits are from the parent's. */
async function scoreAgainst(parent: NetworkModel): Promise<(network: RunnableNetwork) => Promise<number>> {
  const expected = asFloat32(await parent.output(images));
  const power = expected.reduce((sum, value) => sum + value ** 2, 0);
  return async (network) => {
    const logits = asFloat32(await network.output(images));
    return (-100 * expected.reduce((sum, value, i) => sum + (value - (logits[i] ?? Number.NaN)) ** 2, 0)) / power;
  };
}

it("fastnas-resnet: the sensitivities and the sizes under each constraint are the reference's", async () => {
  const checkpoint = await temporaryFolder();
  expect(Object.keys(cases)).toEqual(["params50", "flops40"]);
  // The second constraint goes by the sensitivities that the first one measured.
  for (const golden of Object.values(cases)) {
    await using network = await load();
    const scoreFunc = await scoreAgainst(network);
    const { subnet, stateDict } = await prune(network, MODE, golden.constraint, image, { scoreFunc, checkpoint });

    expect(Object.keys(stateDict.sensitivityMap)).toEqual(Object.keys(golden.sensitivity_map));
    for (const [hyperparameter, choices] of Object.entries(golden.sensitivity_map)) {
      const ours = stateDict.sensitivityMap[hyperparameter] ?? {};
      expect(Object.keys(ours)).toEqual(Object.keys(choices));
      for (const [size, theirs] of Object.entries(choices)) {
        expect(Math.abs((ours[size] ?? Number.NaN) - theirs), `${hyperparameter} ${size}`).toBeLessThanOrEqual(1e-3 * Math.abs(theirs));
      }
    }
    const sizes = Object.keys(golden.sensitivity_map).map((hyperparameter) => [hyperparameter, golden.best_config[hyperparameter]]);
    expect(stateDict.best.sizes).toEqual(Object.fromEntries(sizes));
    expect(-stateDict.best.degradation / golden.best_metric).toBeCloseTo(1, 3);
    expect(stateDict.costs.child).toEqual({ params: golden.params, flops: golden.best_constraints.flops });
    expect((await scoreFunc(subnet)) / golden.score_after).toBeCloseTo(1, 3);

    const out = join(await temporaryFolder(), "child");
    await subnet.save(out);
    await using child = await bridge.load({ checkpoint: out });
    expect(largestDifference(asFloat32(await child.output(images)), asFloat32(await subnet.output(images)))).toBe(0);
  }
});
