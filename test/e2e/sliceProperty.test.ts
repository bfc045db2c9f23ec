import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { ScoreFile } from "../../src/checkpoint/scoreFile.js";
import { Bridge, type PlanFile, plan, readParent, slice, verify } from "../../src/index.js";
import { findPython } from "../../src/shim/python.js";
import { asFloat32, type Dtype } from "../../src/tensor.js";
import { type Config, mulberry32, plantedScores, writeCheckpoint } from "../fixtures/checkpoints.js";

const RUNS = Number(process.env["PRUNEBRIDGE_PROPERTY_RUNS"] ?? 30);
const REFERENCE = join(dirname(fileURLToPath(import.meta.url)), "..", "fixtures", "reference_slice.py");

interface Network {
  readonly config: Config;
  readonly exportConfig: Record<string, number>;
  readonly files: number;
  readonly dtype: Dtype;
  readonly seed: number;
}

const upTo = (most: number, least = 1): fc.Arbitrary<number> => fc.integer({ min: least, max: most });

/** Any family, dimensions, switches and legal target. */
const networks: fc.Arbitrary<Network> = fc
  .record({
    family: fc.constantFrom("Llama", "Mistral", "Qwen2", "Qwen3", "Nemotron"),
    groups: upTo(4),
    perGroup: upTo(3),
    headDim: fc.constantFrom(4, 8, 16),
    hidden: upTo(40, 8),
    ffn: upTo(48, 4),
    layers: upTo(4),
    tied: fc.boolean(),
    attentionBias: fc.boolean(),
    mlpBias: fc.boolean(),
    dtype: fc.constantFrom<Dtype>("F32", "BF16", "F16"),
    files: upTo(3),
    seed: fc.nat(1e6),
  })
  .chain((n) =>
    fc
      .record({
        groups: upTo(n.groups),
        perGroup: upTo(n.perGroup),
        hidden: upTo(n.hidden),
        ffn: upTo(n.ffn),
        layers: upTo(n.layers),
      })
      .map((target) => ({ ...networkOf(n), exportConfig: exportOf(target) })),
  )
  // transformers' LlamaConfig demands it of parent and child.
  .filter(({ config, exportConfig }) => config["model_type"] !== "llama" || (divides(config) && divides(exportConfig)));

function divides(sizes: Record<string, unknown>): boolean {
  return Number(sizes["hidden_size"]) % Number(sizes["num_attention_heads"]) === 0;
}

function networkOf(n: {
  family: string;
  groups: number;
  perGroup: number;
  headDim: number;
  hidden: number;
  ffn: number;
  layers: number;
  tied: boolean;
  attentionBias: boolean;
  mlpBias: boolean;
  dtype: Dtype;
  files: number;
  seed: number;
}): Omit<Network, "exportConfig"> {
  const config: Config = {
    architectures: [`${n.family}ForCausalLM`],
    model_type: n.family.toLowerCase(),
    hidden_size: n.hidden,
    intermediate_size: n.ffn,
    num_hidden_layers: n.layers,
    num_attention_heads: n.groups * n.perGroup,
    num_key_value_heads: n.groups,
    head_dim: n.headDim,
    vocab_size: 20,
    max_position_embeddings: 32,
    tie_word_embeddings: n.tied,
    dtype: { F32: "float32", BF16: "bfloat16", F16: "float16" }[n.dtype as "F32"],
    ...(["Llama", "Qwen3", "Nemotron"].includes(n.family) && { attention_bias: n.attentionBias }),
    ...(["Llama", "Nemotron"].includes(n.family) && { mlp_bias: n.mlpBias }),
    ...(n.family.startsWith("Qwen") && { max_window_layers: 2, layer_types: Array.from({ length: n.layers }, () => "full_attention") }),
  };
  return { config, files: n.files, dtype: n.dtype, seed: n.seed };
}

function exportOf(target: { groups: number; perGroup: number; hidden: number; ffn: number; layers: number }): Record<string, number> {
  return {
    num_query_groups: target.groups,
    num_attention_heads: target.groups * target.perGroup,
    hidden_size: target.hidden,
    ffn_hidden_size: target.ffn,
    num_layers: target.layers,
  };
}

let bridge: Bridge;
let folder: string;
let ask: (job: unknown) => Promise<string>;
let stopReference: () => Promise<unknown>;

beforeAll(async () => {
  bridge = await Bridge.spawn();
  folder = await mkdtemp(join(tmpdir(), "prunebridge-property-"));
  const reference = execa(findPython(), [REFERENCE], { stderr: "inherit", buffer: false, reject: false });
  const lines = createInterface({ input: reference.stdout })[Symbol.asyncIterator]();
  ask = async (job) => {
    reference.stdin.write(`${JSON.stringify(job)}\n`);
    return String((await lines.next()).value);
  };
  stopReference = () => {
    reference.stdin.end();
    return reference;
  };
});
afterAll(async () => {
  await stopReference?.();
  await bridge?.close();
  if (folder) await rm(folder, { recursive: true, force: true });
});

/** The kept sets in full, as the reference takes them: what a plan leaves out is whole. */
function spelledOut({ kept, parent }: PlanFile): unknown {
  const { hyperparameters: h } = parent;
  const whole = (size: number): number[] => Array.from({ length: size }, (_, i) => i);
  const layers = (kept.layer ?? whole(h.num_layers)) as number[];
  const inLayers = <T>(tree: unknown, all: T): Record<string, T> =>
    (tree as Record<string, T> | undefined) ?? Object.fromEntries(layers.map((l) => [l, all]));
  const group = inLayers(kept.group, whole(h.num_query_groups));
  const perGroup = whole(h.num_attention_heads / h.num_query_groups);
  return {
    layer: layers,
    hidden: kept.hidden ?? whole(h.hidden_size),
    ffn: inLayers(kept.ffn, whole(h.ffn_hidden_size ?? 0)),
    group,
    heads_of_group:
      kept.heads_of_group ?? Object.fromEntries(layers.map((l) => [l, Object.fromEntries((group[l] ?? []).map((g) => [g, perGroup]))])),
    head_dim: h.kv_channels,
  };
}

function randomScores(config: Config, seed: number): ScoreFile {
  const random = mulberry32(seed);
  const tensors = plantedScores(config, () => random());
  const accumulators = new Map(tensors.map((tensor) => [tensor.name, { shape: tensor.shape, data: asFloat32(tensor) }]));
  return { accumulators, fingerprint: undefined, provenance: {} };
}

it(`slicing by plan equals slicing the model in memory, and transformers loads the child (${RUNS} random networks)`, async () => {
  let run = 0;
  await fc.assert(
    fc.asyncProperty(networks, async ({ config, exportConfig, files, dtype, seed }) => {
      run += 1;
      const [parentDir, childDir] = [join(folder, `${run}-parent`), join(folder, `${run}-child`)];
      const parent = await readParent(await writeCheckpoint(parentDir, config, { seed, files, dtype }));
      const made = plan(parent, exportConfig, { scores: randomScores(config, seed), path: "planted" });
      await slice(bridge, parent, made, childDir);
      const { inspection } = await verify(childDir);
      expect(inspection.hyperparameters).toEqual(made.child.hyperparameters);
      expect(inspection.params).toBe(made.child.params);
      expect(await ask({ parent: parentDir, child: childDir, kept: spelledOut(made) })).toBe("ok");
      await Promise.all([parentDir, childDir].map((dir) => rm(dir, { recursive: true })));
    }),
    { numRuns: RUNS, endOnFailure: true },
  );
}, 600_000);
