import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Bridge, plan, readParent, slice, verify } from "../../src/index.js";
import { readArchitecture } from "../../src/policy/architecture.js";
import type { LayoutName } from "../../src/policy/families/table.js";
import { fewestExperts, prunableNames } from "../../src/policy/hyperparameters.js";
import type { Dtype } from "../../src/tensor.js";
import { type Config, writeCheckpoint } from "../fixtures/checkpoints.js";
import { randomScores } from "../fixtures/cutting.js";
import { FAMILIES, networkOf } from "../fixtures/networks.js";
import { type Reference, spelledOut, startReference } from "../fixtures/reference.js";

const RUNS = Number(process.env["PRUNEBRIDGE_PROPERTY_RUNS"] ?? 30);
const DIVIDING = ["llama", "gemma3_text"];

interface Network {
  readonly config: Config;
  readonly exportConfig: Record<string, number>;
  readonly files: number;
  readonly dtype: Dtype;
  readonly layout: LayoutName | undefined;
  readonly seed: number;
}

const upTo = (most: number, least = 1): fc.Arbitrary<number> => fc.integer({ min: least, max: most });

/** Any family, dimensions, switches and legal target. */
const networks: fc.Arbitrary<Network> = fc
  .record({
    family: fc.constantFrom(...FAMILIES),
    groups: upTo(4),
    perGroup: upTo(3),
    headDim: fc.constantFrom(4, 8, 16),
    hidden: upTo(40, 8),
    ffn: upTo(48, 4),
    layers: upTo(4),
    experts: upTo(5, 2),
    expertFfn: upTo(12, 2),
    sharedFfn: upTo(20, 2),
    mambaGroups: upTo(2),
    mambaPerGroup: upTo(3),
    mambaHeadDim: fc.constantFrom(2, 4, 6),
    kinds: fc.array(fc.constantFrom("M", "*", "-", "E"), { minLength: 4, maxLength: 4 }),
    latent: fc.constantFrom(null, 6),
    tied: fc.boolean(),
    attentionBias: fc.boolean(),
    mlpBias: fc.boolean(),
    packed: fc.boolean(),
    dtype: fc.constantFrom<Dtype>("F32", "BF16", "F16"),
    files: upTo(3),
    seed: fc.nat(1e6),
  })
  .chain((n) => {
    const { config, ...network } = networkOf(n);
    return exportConfigs(config).map((exportConfig) => ({ ...network, config, exportConfig }));
  })
  // transformers' config classes of these demand it of parent and child.
  .filter(({ config, exportConfig }) => !DIVIDING.includes(String(config["model_type"])) || (divides(config) && divides(exportConfig)));

function divides(sizes: Record<string, unknown>): boolean {
  return Number(sizes["hidden_size"]) % Number(sizes["num_attention_heads"]) === 0;
}

/** Any legal target that names every hyperparameter of a network. */
function exportConfigs(config: Config): fc.Arbitrary<Record<string, number>> {
  const { hyperparameters: h } = readArchitecture(config);
  const shares = fc.record({ heads: fc.double({ min: 0, max: 1, noNaN: true }), mamba: fc.double({ min: 0, max: 1, noNaN: true }) });
  const least: Record<string, number> = { num_moe_experts: fewestExperts(h) };
  const names = prunableNames(h).filter((name) => name !== "num_attention_heads" && name !== "mamba_num_heads");
  const sizes = fc.record(Object.fromEntries(names.map((name) => [name, upTo(h[name] ?? 1, least[name] ?? 1)])));
  const part = (share: number, most: number): number => 1 + Math.floor(share * (most - 1));
  return fc.tuple(sizes, shares).map(([target, { heads, mamba }]) => ({
    ...target,
    num_attention_heads: (target["num_query_groups"] ?? 1) * part(heads, h.num_attention_heads / h.num_query_groups),
    ...(h.mamba_num_heads !== undefined && {
      mamba_num_heads: (h.mamba_num_groups ?? 1) * part(mamba, h.mamba_num_heads / (h.mamba_num_groups ?? 1)),
    }),
  }));
}

let bridge: Bridge;
let folder: string;
let reference: Reference;

beforeAll(async () => {
  bridge = await Bridge.spawn();
  folder = await mkdtemp(join(tmpdir(), "prunebridge-property-"));
  reference = startReference();
});
afterAll(async () => {
  await reference?.stop();
  await bridge?.close();
  if (folder) await rm(folder, { recursive: true, force: true });
});

it(`slicing by plan equals slicing the model in memory, and transformers loads the child (${RUNS} random networks)`, async () => {
  let run = 0;
  await fc.assert(
    fc.asyncProperty(networks, async ({ config, exportConfig, files, dtype, layout, seed }) => {
      run += 1;
      const [parentDir, childDir] = [join(folder, `${run}-parent`), join(folder, `${run}-child`)];
      const parent = await readParent(await writeCheckpoint(parentDir, config, { seed, files, dtype, layout }));
      const made = plan(parent, exportConfig, { scores: randomScores(config, seed), path: "planted" });
      await slice(bridge, parent, made, childDir);
      const { inspection } = await verify(childDir, { full: true });
      // A child whose last layer of some kind went has no sizes of that kind.
      expect(made.child.hyperparameters).toMatchObject(inspection.hyperparameters);
      expect(inspection.params).toBe(made.child.params);
      expect(await reference.check({ parent: parentDir, child: childDir, kept: spelledOut(parent, made) })).toBe("ok");
      await Promise.all([parentDir, childDir].map((dir) => rm(dir, { recursive: true })));
    }),
    { numRuns: RUNS, endOnFailure: true },
  );
}, 600_000);
