import { PruneError } from "../errors.js";
import type { ModelConfig } from "./architecture.js";
import { MEGATRON_LISTS } from "./families/megatron.js";
import type { FamilyTable, Frequency, ImpliedList, LayerKind } from "./families/table.js";

/**
 * The kind of each layer, by the family's rule.
 *
 * @throws PruneError BAD_CONFIG where the config's list or pattern has another length or a kind that the family has not
 */
export function readLayerKinds(
  config: ModelConfig,
  { layers: rule, family, fields }: FamilyTable,
  layers: number,
  where: string,
): LayerKind[] {
  switch (rule.by) {
    case "uniform":
      return Array.from({ length: layers }, () => "decoder");
    case "sparse_step": {
      const dense = config[rule.dense] ?? [];
      const step = config[rule.step] ?? 1;
      if (!Array.isArray(dense)) throw bad(where, `${rule.dense} must be a list of layers`);
      if (typeof step !== "number" || !Number.isInteger(step) || step < 1) throw bad(where, `${rule.step} must be a positive integer`);
      const named = new Set<unknown>(dense);
      return Array.from({ length: layers }, (_, layer) => (named.has(layer) || (layer + 1) % step !== 0 ? "dense" : "sparse"));
    }
    case "moe_frequency":
      return readFrequency(config, rule, layers, where);
    case "pattern": {
      const key = rule.keys.find((name) => config[name] !== undefined && config[name] !== null);
      const stored = key === undefined ? undefined : config[key];
      const names: unknown[] | undefined = typeof stored === "string" ? [...stored] : Array.isArray(stored) ? stored : undefined;
      if (!names) throw bad(where, `the kinds of the layers are missing; ${rule.keys.join(" or ")} states them`);
      if (names.length !== layers) {
        throw bad(
          where,
          `${key} names ${names.length} layers where ${fields.num_layers.key} states ${layers}`,
          "correct whichever is wrong",
        );
      }
      return names.map((name, layer) => {
        const kind = typeof name === "string" && Object.hasOwn(rule.kinds, name) ? rule.kinds[name] : undefined;
        if (kind) return kind;
        const known = Object.keys(rule.kinds).filter((other) => typeof stored !== "string" || other.length === 1);
        throw bad(
          where,
          `${key} says that layer ${layer} is ${JSON.stringify(name)}, which the ${family} family has not`,
          `it has ${known.join(", ")}`,
        );
      });
    }
  }
}

type FrequencyRule = Extract<FamilyTable["layers"], { by: "moe_frequency" }>;

function readFrequency(config: ModelConfig, rule: FrequencyRule, layers: number, where: string): LayerKind[] {
  const every = Array.from({ length: layers }, (_, layer) => layer);
  if ((config[rule.experts] ?? null) === null) return every.map(() => "dense");
  const frequency = config[rule.frequency] ?? 1;
  if (typeof frequency === "number" && Number.isInteger(frequency) && frequency > 0) {
    return every.map((layer) => (layer % frequency === 0 ? "sparse" : "dense"));
  }
  if (Array.isArray(frequency) && frequency.length === layers && frequency.every((entry) => entry === 0 || entry === 1)) {
    return every.map((layer) => (frequency[layer] === 1 ? "sparse" : "dense"));
  }
  throw bad(where, `${rule.frequency} must be a positive integer, or a list of 0 or 1 for each of the ${layers} layers`);
}

/** Config fields that say what kinds the kept layers are of, and the lists with one entry for each layer. */
export function patchLayers(config: ModelConfig, table: FamilyTable, kinds: readonly LayerKind[], kept: readonly number[]): ModelConfig {
  const patch: Record<string, unknown> = { ...patchKinds(config, table, kinds, kept) };
  for (const { key, absent, frequency } of [...table.perLayerLists, ...MEGATRON_LISTS]) {
    const stated = config[key] ?? (absent && impliedList(config, absent, kinds.length));
    const list = frequency && typeof stated === "number" ? listOf(frequency, stated, kinds.length) : stated;
    if (list !== undefined && list !== null) patch[key] = pickLayers(key, list, kinds.length, kept);
  }
  for (const key of table.layerThresholds) {
    const threshold = config[key];
    if (typeof threshold === "number" && threshold < kinds.length) patch[key] = kept.filter((layer) => layer < threshold).length;
  }
  return patch;
}

function patchKinds(config: ModelConfig, { layers: rule }: FamilyTable, kinds: readonly LayerKind[], kept: readonly number[]): ModelConfig {
  switch (rule.by) {
    case "uniform":
    case "moe_frequency":
      return {};
    case "sparse_step": {
      const dense = kept.flatMap((layer, position) => (kinds[layer] === "dense" ? [position] : []));
      return { [rule.dense]: dense, [rule.step]: 1 };
    }
    case "pattern":
      return Object.fromEntries(
        rule.keys.flatMap((key): [string, unknown][] => {
          const stored = config[key];
          if (typeof stored === "string") return [[key, kept.map((layer) => stored[layer]).join("")]];
          return Array.isArray(stored) ? [[key, kept.map((layer): unknown => stored[layer])]] : [];
        }),
      );
  }
}

function impliedList(config: ModelConfig, implied: ImpliedList, layers: number): string[] | undefined {
  if (implied.when !== undefined && config[implied.when] !== true) return undefined;
  const stated = implied.periodKey === undefined ? undefined : config[implied.periodKey];
  const period = typeof stated === "number" ? stated : implied.period;
  const threshold = implied.thresholdKey === undefined ? undefined : config[implied.thresholdKey];
  const below = typeof threshold === "number" ? threshold : layers;
  const [usual, other] = implied.values;
  return Array.from({ length: layers }, (_, layer) => ((layer + 1) % period !== 0 && layer < below ? usual : other));
}

/** The list that a number stands for; undefined where layers are all alike. */
function listOf({ values: [usual, other], at }: Frequency, every: number, layers: number): number[] | undefined {
  if (every <= 1) return undefined;
  const phase = at === "first" ? 0 : every - 1;
  return Array.from({ length: layers }, (_, layer) => (layer % every === phase ? other : usual));
}

function pickLayers(key: string, list: unknown, layers: number, kept: readonly number[]): unknown[] {
  if (Array.isArray(list) && list.length === layers) return kept.map((layer): unknown => list[layer]);
  throw new PruneError("BAD_CONFIG", `config.json: ${key} must be a list with one entry for each of the ${layers} layers`);
}

function bad(where: string, what: string, hint?: string): PruneError {
  return new PruneError("BAD_CONFIG", `${where}: ${what}`, hint === undefined ? {} : { hint });
}
