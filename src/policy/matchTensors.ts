import { PruneError } from "../errors.js";
import type { Architecture } from "./architecture.js";
import { PADDED_VOCABULARY } from "./families/megatron.js";
import type { Layout, LayoutName } from "./families/table.js";
import { suggestName } from "./nearest.js";
import { refuseQuantizedTensor } from "./quantization.js";
import { checkParts, isPart, partsOf } from "./quantizedParts.js";
import {
  type ArchitectureRow,
  architectureRows,
  EXPERT,
  LAYER,
  type MatchedTensor,
  nameAt,
  type Place,
  rowPlaces,
  rowShape,
  type StoredRow,
  type StoredTensor,
} from "./tensors.js";

/** State of the Transformer Engine's own beside weights, of use to a model of the same shapes only. */
const EXTRA_STATE = "_extra_state";

/** Tensors of a checkpoint, each with its row. */
export interface MatchedTensors<T extends StoredTensor> {
  readonly layout: LayoutName;
  readonly tensors: readonly MatchedTensor<T>[];
}

/**
 * Finds the layout of a checkpoint and the row of every stored tensor, and checks its shape, and that no row lacks a tensor. Tensors that
 * children go without are left out of the result.
 *
 * @throws PruneError UNKNOWN_TENSOR, UNSUPPORTED_QUANTIZATION, BAD_TENSOR (shape, or dtype where weights are quantised) or MISSING_TENSOR,
 *   naming the tensor; BAD_CONFIG where it states a quantisation that no weight has
 */
export function matchTensors<T extends StoredTensor>(architecture: Architecture, stored: readonly T[]): MatchedTensors<T> {
  const layout = findLayout(architecture, stored);
  const all = architectureRows(architecture, layout);
  const rows = rowsByName(architecture, all);
  const padded = withVocabularyPadding(architecture, stored, rows);
  const tensors: MatchedTensor<T>[] = [];
  const present = new Set<string>();
  const packed = new Set<string>();
  for (const tensor of stored) {
    const { template, spelling, ...place } = splitName(tensor.name);
    if (isLeftOut(architecture, template)) continue;
    const shapes = rows.get(template) ?? [];
    const row = shapes.find(({ axes }) => axes.length === tensor.shape.length) ?? shapes[0];
    if (!row || !isPlaced(row, place, architecture)) throw unknownTensor(tensor.name, template, architecture, [...rows.keys()]);
    checkShape(tensor, row, padded, place.layer);
    tensors.push({ stored: tensor, row, spelling, ...place });
    const name = nameAt(row.name, place);
    if (present.has(name)) throw secondTensor(tensor.name, name);
    present.add(name);
    if (isPart(row) && row.role === "packed") packed.add(nameAt(row.weight.name, place));
  }
  const twice = [...packed].find((name) => present.has(name));
  if (twice !== undefined) throw storedTwice(twice);
  if (architecture.quantization) checkParts(architecture.quantization, tensors);
  checkComplete(architecture, all, new Set([...present, ...packed]));
  return { layout, tensors };
}

/** The rows that a name may be of: more than one where it is stored in several shapes. */
function rowsByName({ quantization, table }: Architecture, rows: readonly ArchitectureRow[]): ReadonlyMap<string, readonly StoredRow[]> {
  const byName = new Map<string, StoredRow[]>();
  const add = (name: string, row: StoredRow): unknown => byName.set(name, [...(byName.get(name) ?? []), row]);
  for (const row of rows) {
    add(row.name, row);
    if (quantization) for (const part of partsOf(row, quantization, table)) add(part.name, part);
  }
  // A row's own name comes before another's other spelling.
  const names = new Set(byName.keys());
  for (const row of rows) for (const alias of row.aliases) if (!names.has(alias)) add(alias, row);
  return byName;
}

/** The layout that most of the stored names are of. */
function findLayout(architecture: Architecture, stored: readonly StoredTensor[]): LayoutName {
  const templates = stored.map(({ name }) => splitName(name).template);
  const known = (layout: Layout): number => {
    const names = new Set(architectureRows(architecture, layout.name).flatMap(({ name, aliases }) => [name, ...aliases]));
    return templates.filter((template) => names.has(template)).length;
  };
  const counted = architecture.table.layouts.map((layout) => ({ name: layout.name, known: known(layout) }));
  return counted.reduce((best, next) => (next.known > best.known ? next : best)).name;
}

function isLeftOut({ table }: Architecture, template: string): boolean {
  return (
    template.endsWith(EXTRA_STATE) ||
    table.obsolete.includes(template) ||
    (table.multiTokenPrediction !== undefined && template.startsWith(table.multiTokenPrediction.prefix))
  );
}

const NUMBER = "(0|[1-9]\\d*)";
/** What families call the list of their layers. */
const LAYER_NUMBER = new RegExp(`(?<=\\.(?:layers|layer|h)\\.)${NUMBER}(?=\\.)`);
/** `experts.3.`, `local_experts.3.`, and `experts.linear_fc1.weight3` of experts that are computed as one. */
const EXPERT_NUMBER = new RegExp(`(?<=experts\\.)${NUMBER}(?=\\.)|(?<=\\.experts\\.linear_fc[12]\\.(?:weight|bias))${NUMBER}$`);
/** What wrappers of a Megatron model put before its names. */
const MEGATRON_WRAPPERS = /^(?:model\.)?(?:module\.)*(?=(?:embedding|decoder|output_layer|mtp)\.)/;

/** `model.layers.7.mlp.experts.3.x` -> `model.layers.{layer}.mlp.experts.{expert}.x`, 7, 3; the template is without a wrapper's prefix. */
function splitName(name: string): { template: string; spelling: string } & Place {
  const [layer, expert] = [LAYER_NUMBER, EXPERT_NUMBER].map((number) => number.exec(name)?.[0]);
  const spelling = name.replace(LAYER_NUMBER, LAYER).replace(EXPERT_NUMBER, EXPERT);
  return {
    template: spelling.replace(MEGATRON_WRAPPERS, ""),
    spelling,
    layer: layer === undefined ? undefined : Number(layer),
    expert: expert === undefined ? undefined : Number(expert),
  };
}

/** Megatron-Core pads the vocabulary to what its tensor-parallel size wants: by how much, only the weights say. */
function withVocabularyPadding(
  architecture: Architecture,
  stored: readonly StoredTensor[],
  rows: ReadonlyMap<string, readonly StoredRow[]>,
): Architecture {
  const embedding = stored.find(({ name }) => rows.get(splitName(name).template)?.[0]?.axisTexts[0] === PADDED_VOCABULARY);
  const vocabulary = architecture.sizes["vocab"] ?? 0;
  const padding = (embedding?.shape[0] ?? vocabulary) - vocabulary;
  return padding > 0 ? { ...architecture, sizes: { ...architecture.sizes, vocab_padding: padding } } : architecture;
}

function isPlaced(row: StoredRow, { layer, expert }: Place, { layers, hyperparameters }: Architecture): boolean {
  // A name may hold the words that stand for a number.
  if (row.perLayer !== (layer !== undefined) || row.perExpert !== (expert !== undefined)) return false;
  if (expert !== undefined && expert >= (hyperparameters.num_moe_experts ?? 0)) return false;
  if (layer === undefined) return true;
  const kind = layers[layer];
  return kind !== undefined && (row.on?.includes(kind) ?? true);
}

function checkShape(tensor: StoredTensor, row: StoredRow, architecture: Architecture, layer: number | undefined): void {
  const expected = rowShape(row, architecture, layer);
  if (expected.length === tensor.shape.length && expected.every((size, axis) => size === tensor.shape[axis])) return;
  throw new PruneError(
    "BAD_TENSOR",
    `${tensor.name} has shape [${tensor.shape.join(", ")}], but config.json makes [${row.axisTexts.join(", ")}] = [${expected.join(", ")}]`,
    { hint: "the weights and config.json belong to different models, or the config was edited" },
  );
}

function checkComplete(architecture: Architecture, rows: Iterable<ArchitectureRow>, present: ReadonlySet<string>): void {
  for (const row of rows) {
    if (row.shared) continue;
    const missing = firstMissing(row, architecture, present);
    if (missing === undefined) continue;
    throw new PruneError("MISSING_TENSOR", `the checkpoint has no ${missing}, which ${architecture.table.family} models have`, {
      hint:
        row.name === "lm_head.weight" ? 'tied embeddings need "tie_word_embeddings": true in config.json' : "download the checkpoint again",
    });
  }
}

/** One after the other: a config may state more places than memory holds. */
function firstMissing(row: ArchitectureRow, architecture: Architecture, present: ReadonlySet<string>): string | undefined {
  for (const place of rowPlaces(row, architecture)) {
    const name = nameAt(row.name, place);
    if (!present.has(name)) return name;
  }
  return undefined;
}

function unknownTensor(name: string, template: string, architecture: Architecture, known: readonly string[]): PruneError {
  const { table, hyperparameters } = architecture;
  const { layer, expert } = splitName(name);
  if (layer !== undefined && layer >= hyperparameters.num_layers) return beyond(name, `${hyperparameters.num_layers} layers`);
  const experts = hyperparameters.num_moe_experts;
  if (expert !== undefined && experts !== undefined && expert >= experts) return beyond(name, `${experts} experts`);
  const quantized = refuseQuantizedTensor(name, architecture.quantization);
  if (quantized) return quantized;
  const nearest = suggestName(template, known).split(" Legal")[0];
  return new PruneError("UNKNOWN_TENSOR", `the ${table.family} family has no tensor ${name} under this config; nothing is copied unseen`, {
    hint: `${nearest} Adapters and remote-code additions must be merged or removed first`,
  });
}

function storedTwice(name: string): PruneError {
  return new PruneError("UNKNOWN_TENSOR", `${name} is there both as it is and in packed form`, {
    hint: "remove whichever is not the model's own",
  });
}

function secondTensor(name: string, known: string): PruneError {
  return new PruneError("UNKNOWN_TENSOR", `${name} is ${known}, which is there under another name as well`, {
    hint: "remove whichever is not the model's own",
  });
}

function beyond(name: string, what: string): PruneError {
  return new PruneError("UNKNOWN_TENSOR", `${name} lies beyond the ${what} that config.json states`, {
    hint: "the weights and config.json belong to different models, or the config was edited",
  });
}
