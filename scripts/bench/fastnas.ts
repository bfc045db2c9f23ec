// What FastNAS costs beside scoring: bisection on the facts of a network of 50 layers, and scoring's share of the wall time of a run.
import { mkdtemp, rm } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { asFloat32, Bridge, formatTable, prune, type RunnableNetwork, tensor } from "../../src/index.js";
import { chooseNetwork, type NetworkSpace, networkSpace, profileSpace } from "../../src/policy/modes/fastnas.js";
import { choiceRule, networkOptions } from "../../src/policy/modes/fastnasOptions.js";
import { parseNetworkConstraint } from "../../src/policy/modes/networkConstraint.js";
import type { Sensitivity } from "../../src/policy/sensitivity/sensitivity.js";

const ROUNDS = 15;
const IMAGES = 256;
const GOALS = { bisection: 50, scoring: 95 };

const median = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
const image = (count: number) =>
  tensor(
    Float32Array.from({ length: count * 3 * 64 * 64 }, (_, i) => Math.sin(i)),
    [count, 3, 64, 64],
  );

const dir = await mkdtemp(join(tmpdir(), "prunebridge-bench-"));
try {
  await using bridge = await Bridge.spawn({ env: { PYTHONPATH: join("scripts", "bench") }, allowPython: ["fastnas_network"] });
  await using network = await bridge.load({ entrypoint: "fastnas_network:build" });
  const facts = await network.trace(image(1));
  const space = networkSpace(facts, choiceRule(networkOptions.parse({ "nn.Conv2d": { "*": { channel_divisor: 8 } } })));
  const bisections = bisectOften(space);

  const batch = image(IMAGES);
  const expected = asFloat32(await network.output(batch));
  const scoreFunc = async (candidate: RunnableNetwork): Promise<number> => {
    const output = asFloat32(await candidate.output(batch));
    return -expected.reduce((sum, value, i) => sum + (value - (output[i] ?? Number.NaN)) ** 2, 0);
  };
  const choices = { "nn.Conv2d": { "*": { channels_ratio: [0.25, 0.5, 0.75], channel_divisor: 8 } } };
  const { stateDict } = await prune(network, { fastnas: choices }, { flops: "60%" }, image(1), { scoreFunc, checkpoint: dir });
  const { tracing, scoring, viewing, total } = stateDict.timings;
  const candidates = Object.values(stateDict.sensitivity.degradations).reduce((sum, { length }) => sum + length - 1, 0);

  const layers = facts.operations.length;
  console.log(`${cpus().length} cores of ${cpus()[0]?.model}; ${layers} layers, ${space.hyperparameters.length} hyperparameters\n`);
  console.log(
    formatTable([
      ["", "measured", "goal"],
      ["bisection without scoring, ms (median)", median(bisections).toFixed(1), `under ${GOALS.bisection}`],
      [`scoring ${IMAGES} images, share of the wall time`, `${((100 * scoring) / total).toFixed(1)}%`, `at least ${GOALS.scoring}%`],
      ["candidates", candidates, ""],
      ["tracing, share", `${((100 * tracing) / total).toFixed(1)}%`, ""],
      ["making candidates, share", `${((100 * viewing) / total).toFixed(1)}%`, ""],
      ["a candidate made and taken back, ms", ((1e3 * viewing) / candidates).toFixed(1), ""],
      ["the whole run, s", total.toFixed(1), ""],
    ]),
  );
} finally {
  await rm(dir, { recursive: true, force: true });
}

/** Milliseconds of bisections from the same sensitivities, each with nothing known of channels that are kept. */
function bisectOften({ facts, hyperparameters }: NetworkSpace): number[] {
  const degradations = Object.fromEntries(
    hyperparameters.map(({ name, choices }, at) => [
      name,
      choices.map((size, i) => (choices.length - 1 - i) * (1 + (at % 7)) * (1 / size)),
    ]),
  );
  const sensitivity: Sensitivity = { originalScore: 0, degradations };
  return Array.from({ length: ROUNDS }, () => {
    const space = networkSpace(facts, choiceRule(networkOptions.parse({ "nn.Conv2d": { "*": { channel_divisor: 8 } } })));
    const began = performance.now();
    chooseNetwork(space, profileSpace(space, parseNetworkConstraint("fastnas", { flops: "50%" })), sensitivity);
    return performance.now() - began;
  });
}
