// Prunes a residual network for scikit-learn's digits to shares of its flops, and compares that with making all layers narrower alike.
import { rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import {
  asBigInt64,
  asFloat32,
  Bridge,
  type FastnasConfig,
  type FastnasState,
  type NetworkScoreFunc,
  prune,
  type RunnableNetwork,
  readTensors,
  type Tensor,
  tensor,
} from "../../src/index.js";
import { formatTable } from "../../src/tables.js";

const HERE = dirname(fileURLToPath(import.meta.url));
const [folder = ".digits", ...trainingEpochs] = process.argv.slice(2);
const trained = resolve(folder, "trained");
const checkpoint = resolve(folder, "checkpoint");

interface Part {
  readonly images: Tensor;
  readonly labels: readonly number[];
}

const python = async (...args: string[]): Promise<string> =>
  (await execa(process.env["PRUNEBRIDGE_PYTHON"] ?? "python3", [join(HERE, "digits.py"), ...args], { stderr: "inherit" })).stdout;

/** The logits of each image, [N][10]. */
async function logitsOf(network: RunnableNetwork, { images, labels }: Part): Promise<number[][]> {
  const logits = asFloat32(await network.output(images));
  return labels.map((_, i) => [...logits.subarray(10 * i, 10 * i + 10)]);
}

async function accuracy(network: RunnableNetwork, part: Part): Promise<number> {
  const logits = await logitsOf(network, part);
  const right = logits.filter((row, i) => row.indexOf(Math.max(...row)) === part.labels[i]);
  return right.length / logits.length;
}

/** Minus the mean cross entropy: it tells more than an accuracy, which changes in steps. */
async function likelihood(network: RunnableNetwork, part: Part): Promise<number> {
  const logits = await logitsOf(network, part);
  const likelihoods = logits.map(
    (row, i) => (row[part.labels[i] ?? 0] ?? 0) - Math.log(row.reduce((sum, value) => sum + Math.exp(value), 0)),
  );
  return likelihoods.reduce((sum, value) => sum + value, 0) / logits.length;
}

async function readParts(): Promise<{ judge: Part; test: Part }> {
  const tensors = await readTensors(join(trained, "images.safetensors"));
  const part = (name: string): Part => {
    const [images, labels] = [tensors[`${name}.images`], tensors[`${name}.labels`]];
    if (!images || !labels) throw new Error(`${trained} has no images to ${name}`);
    return { images, labels: [...asBigInt64(labels)].map(Number) };
  };
  return { judge: part("judge"), test: part("test") };
}

console.error("training ...");
for (const earlier of [trained, checkpoint]) await rm(earlier, { recursive: true, force: true });
await python("train", trained, ...trainingEpochs);
const { judge, test } = await readParts();
const image = tensor(new Float32Array(64), [1, 1, 8, 8]);
await using bridge = await Bridge.spawn({ env: { OMP_NUM_THREADS: "1" }, allowPython: [HERE] });
const load = () => bridge.load({ entrypoint: "digits:build", weights: join(trained, "weights.safetensors") });

interface Pruned {
  readonly name: string;
  readonly folder: string;
  readonly state: FastnasState;
  readonly accuracy: number;
}

/** Prunes the network, and saves it. */
async function pruneInto(name: string, choices: Record<string, unknown>, flops: string, config: FastnasConfig): Promise<Pruned> {
  await using network = await load();
  const { subnet, stateDict } = await prune(network, { fastnas: { "nn.Conv2d": { "*": choices } } }, { flops }, image, config);
  const child = resolve(folder, name.replaceAll(/\W+/g, "-"));
  await rm(child, { recursive: true, force: true });
  await subnet.save(child);
  return { name, folder: child, state: stateDict, accuracy: await accuracy(subnet, test) };
}

/** The narrowest network of one ratio in all layers that has at least so many flops; its channels are ranked alike. */
async function pruneUniformly(name: string, least: number, whole: number): Promise<Pruned> {
  const indifferent: NetworkScoreFunc = () => 0; // takes the smallest choice of every layer
  for (let channels = Math.floor(32 * Math.sqrt(least / whole)); ; channels++) {
    const made = await pruneInto(name, { channels_ratio: [channels / 32], channel_divisor: 1 }, "99%", { scoreFunc: indifferent });
    if (made.state.costs.child.flops >= least) return made;
  }
}

/** A row of the table; what was saved is tuned for it. */
async function rowOf({ name, folder: child, state, accuracy: pruned }: Pruned): Promise<(string | number)[]> {
  const { parent, child: costs } = state.costs;
  const share = `${((100 * costs.flops) / parent.flops).toFixed(1)}%`;
  return [name, costs.params, costs.flops, share, percent(pruned), percent(Number(await python("tune", child)))];
}

const percent = (share: number): string => `${(100 * share).toFixed(2)}%`;

const rows: (string | number)[][] = [["network", "params", "flops", "of the whole", "accuracy, pruned", "tuned"]];
{
  await using network = await load();
  rows.push(["whole", "", "", "100.0%", percent(await accuracy(network, test)), ""]);
}
for (const flops of ["50%", "30%"]) {
  let scored = 0;
  const scoreFunc = (network: RunnableNetwork): Promise<number> => {
    scored += 1;
    return likelihood(network, judge);
  };
  const fastnas = await pruneInto(`fastnas ${flops}`, { channel_divisor: 2 }, flops, { scoreFunc, checkpoint });
  console.error(`${flops} of the flops: scored ${scored} networks in ${fastnas.state.timings.scoring.toFixed(1)} s`);
  const { parent, child } = fastnas.state.costs;
  rows.push(await rowOf(fastnas), await rowOf(await pruneUniformly(`uniform ${flops}`, child.flops, parent.flops)));
}
console.log(formatTable(rows));
