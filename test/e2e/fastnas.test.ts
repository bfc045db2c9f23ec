import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  asFloat32,
  Bridge,
  type FastnasConfig,
  type FastnasResult,
  type NetworkModel,
  prune,
  python,
  type RunnableNetwork,
  readTensors,
} from "../../src/index.js";
import { temporaryFolder } from "../fixtures/checkpoints.js";
import { spawnForTest } from "../fixtures/failures.js";
import { largestDifference } from "../fixtures/goldens.js";
import { FOURS, images, nearness, WITH_VISION } from "../fixtures/vision.js";

const EVEN = [0, 2, 4, 6, 8, 10, 12, 14];
const ALL = Array.from({ length: 16 }, (_, i) => i);
const INPUTS = images(4, 4);

let bridge: Bridge;
beforeAll(async () => {
  bridge = await Bridge.spawn(WITH_VISION);
});
afterAll(() => bridge?.close());

const load = (kept: readonly number[]): Promise<NetworkModel> => bridge.load({ entrypoint: "vision:planted", kwargs: { kept } });

async function pruned(
  network: NetworkModel,
  constraints: Readonly<Record<string, number | string>>,
  config: Partial<FastnasConfig> = {},
): Promise<FastnasResult> {
  const scoreFunc = nearness(INPUTS, asFloat32(await network.output(INPUTS)));
  return prune(network, FOURS, constraints, INPUTS, { scoreFunc, ...config });
}

describe("fastnas", () => {
  it("keeps planted channels, cuts what nothing reads, and saves what it computes", async () => {
    const out = join(await temporaryFolder(), "child");
    await using network = await load(EVEN);
    const before = asFloat32(await network.output(INPUTS));
    const { subnet, stateDict } = await pruned(network, { flops: "50%" });
    expect(stateDict.best).toEqual({ sizes: { "main.out_channels": 8, "side.out_channels": 4 }, degradation: 0 });
    expect(largestDifference(asFloat32(await subnet.output(INPUTS)), before)).toBeLessThanOrEqual(1e-6);

    const manifest = await subnet.save(out, { sha256: true });
    expect((await readdir(out)).sort()).toEqual(["architecture.json", "model.safetensors", "prune_manifest.json"]);
    expect(manifest).toMatchObject({ pruned: { mode: "fastnas", sizes: stateDict.best.sizes }, shards: [{ file: "model.safetensors" }] });
    const { "main.bias": bias } = await readTensors(join(out, "model.safetensors"));
    expect([...asFloat32(bias ?? INPUTS)]).toEqual(EVEN.map((channel) => (channel + 1) / 16));
    await using child = await bridge.load({ checkpoint: out });
    expect(asFloat32(await child.output(INPUTS))).toEqual(asFloat32(await subnet.output(INPUTS)));
  });

  it("cuts what nothing reads before what is read", async () => {
    await using network = await load(ALL);
    const { stateDict } = await pruned(network, { params: "75%" });
    expect(stateDict.best.sizes).toEqual({ "main.out_channels": 16, "side.out_channels": 4 });
  });

  it.each([
    ["flops", "60%"],
    ["params", "60%"],
    ["flops", 8_000],
    ["params", 120],
  ] as const)("meets %s %s", async (metric, bound) => {
    await using network = await load(EVEN);
    const { stateDict } = await pruned(network, { [metric]: bound });
    const { parent, child } = stateDict.costs;
    const most = typeof bound === "number" ? bound : 0.6 * parent[metric];
    expect(child[metric]).toBeLessThanOrEqual(most);
    expect(stateDict.profile).toMatchObject({ metric, most, satisfiable: true });
  });

  it("leaves the network as it was while it looks at candidates", async () => {
    await using network = await load(EVEN);
    const expected = asFloat32(await network.output(INPUTS));
    const score = nearness(INPUTS, expected);
    const seen: Float32Array[] = [];
    const scoreFunc = async (candidate: RunnableNetwork): Promise<number> => {
      seen.push(asFloat32(await network.output(INPUTS)));
      return score(candidate);
    };
    await pruned(network, { flops: "50%" }, { scoreFunc });
    expect(seen.length).toBeGreaterThan(3);
    for (const output of seen) expect(output).toEqual(expected);
  });

  it("is judged and calibrated by Python, too", async () => {
    await using network = await load(EVEN);
    const { stateDict } = await pruned(
      network,
      { flops: "50%" },
      { scoreFunc: python("vision:score"), dataLoader: python("vision:loader") },
    );
    expect(stateDict.calibration).toEqual({ batches: 5, layers: 1 });
    expect(Object.keys(stateDict.sensitivityMap)).toEqual(["main.out_channels", "side.out_channels"]);
  });

  it("calibrates normalisation over the batches that it is told to, and no more", async () => {
    let drawn = 0;
    function* batches() {
      for (;;) yield images(4, 4, drawn++);
    }
    const outputs: Float32Array[] = [];
    for (const source of [
      { dataLoader: batches(), maxIterDataLoader: 3 },
      {
        forwardLoop: async ({ forward }: { forward(args: ReturnType<typeof images>): Promise<void> }) => {
          for (let i = 0; i < 3; i++) await forward(images(4, 4, i));
        },
      },
    ]) {
      await using network = await load(EVEN);
      const uncalibrated = asFloat32(await network.output(INPUTS));
      const { subnet, stateDict } = await pruned(network, { flops: "50%" }, { ...source, scoreFunc: () => 1 });
      expect(stateDict.calibration).toEqual({ batches: 3, layers: 1 });
      const output = asFloat32(await subnet.output(INPUTS));
      expect(largestDifference(output, uncalibrated)).toBeGreaterThan(0.1);
      outputs.push(output);
    }
    expect(drawn).toBe(3);
    expect(outputs[1]).toEqual(outputs[0]);
  });

  it("tells of what it does", async () => {
    const said: string[] = [];
    const counted: number[] = [];
    const phases = new Map<string, number>();
    await using network = await load(EVEN);
    await pruned(
      network,
      { flops: "50%" },
      {
        verbose: (text) => said.push(text),
        onProgress: ({ phase, done, total }) => {
          phases.set(phase, done / total);
          if (phase === "scoring") counted.push(done);
        },
      },
    );
    expect(said[0]).toMatch(
      /main\.out_channels +4 8 12 16\n.*side\.out_channels[\s\S]*min +centroid +max +max\/min[\s\S]*\(50\.0%\): can be met$/,
    );
    expect(said).toContainEqual(expect.stringMatching(/^main\.out_channels 4: score -/));
    expect(said.at(-1)).toMatch(/main\.out_channels +16 +8 +50\.0%/);
    expect(said).toContainEqual("the whole network: score 0.00000");
    expect(phases.get("scoring")).toBe(1);
    expect(counted).toEqual([...counted].sort((a, b) => a - b));
  });
});

describe("a checkpoint", () => {
  it("scores nothing again for another constraint, and goes on where a run was killed", async () => {
    const checkpoint = await temporaryFolder();
    const expected = await load(EVEN).then(async (network) => {
      await using whole = network;
      return asFloat32(await whole.output(INPUTS));
    });
    const score = nearness(INPUTS, expected);
    let scored = 0;
    let dyingAt = Number.POSITIVE_INFINITY;
    const told: number[] = [];
    const onProgress: FastnasConfig["onProgress"] = ({ phase, done, total }) => phase === "scoring" && told.push(done / total);
    const run = async (over: Bridge & { pid?: number }, flops: string): Promise<FastnasResult> => {
      await using network = await over.load({ entrypoint: "vision:planted", kwargs: { kept: EVEN } });
      const scoreFunc = async (candidate: RunnableNetwork): Promise<number> => {
        scored += 1;
        if (scored === dyingAt) process.kill(over.pid ?? 0, "SIGKILL");
        return score(candidate);
      };
      return await prune(network, FOURS, { flops }, INPUTS, { scoreFunc, checkpoint, onProgress });
    };

    // The whole network and two sizes of `main`; a third costs nothing for certain. The first of `side` is the fourth.
    dyingAt = 4;
    await expect(run(await spawnForTest(WITH_VISION), "50%")).rejects.toMatchObject({ code: "SHIM_DIED" });
    [scored, dyingAt] = [0, Number.POSITIVE_INFINITY];
    told.length = 0;
    const first = await run(bridge, "50%");
    expect([told[0], told.at(-1)]).toEqual([4 / 7, 1]);
    expect(scored).toBe(1);
    expect(first.stateDict.best.sizes).toEqual({ "main.out_channels": 8, "side.out_channels": 4 });

    told.length = 0;
    const second = await run(bridge, "30%");
    expect(told).toEqual([1]);
    expect(scored).toBe(1);
    expect(second.stateDict.best.sizes).toEqual({ "main.out_channels": 4, "side.out_channels": 4 });
    expect(second.stateDict.sensitivity).toEqual(first.stateDict.sensitivity);
    expect(second.stateDict.history.map(({ constraints }) => constraints)).toEqual([{ flops: "50%" }, { flops: "30%" }]);
  });

  it("is refused where it is of something else, and says of what", async () => {
    const checkpoint = await temporaryFolder();
    const scoreFunc = (): number => 1;
    type Changed = { kept?: number[]; size?: number; seed?: number; mode?: object; calibrated?: boolean } & Partial<FastnasConfig>;
    const run = async (changed: Changed): Promise<FastnasResult> => {
      const { kept = EVEN, size = 4, seed = 0, mode = FOURS, calibrated = false, ...config } = changed;
      await using network = await load(kept);
      if (calibrated) await network.calibrateNorms([INPUTS]);
      return await prune(network, mode as typeof FOURS, { flops: "50%" }, images(4, size, seed), { scoreFunc, checkpoint, ...config });
    };
    await run({});
    const cases: [Parameters<typeof run>[0], RegExp][] = [
      [{ kept: [1, 3] }, /another network/],
      [{ size: 5 }, /another dummy input/],
      [{ mode: { fastnas: { "nn.Conv2d": { "*": { channel_divisor: 8 } } } } }, /other choices/],
      [{ scoreFunc: () => 2 }, /another scoreFunc/],
      [{ dataLoader: [INPUTS] }, /calibrated with other data/],
      [{ calibrated: true }, /calibrated with other data/],
    ];
    for (const [changed, says] of cases) {
      await expect(run(changed)).rejects.toMatchObject({ code: "CHECKPOINT_MISMATCH", detail: expect.stringMatching(says) });
    }
    await run({ seed: 1 }); // its values have no part in what is traced
  });
});
