import { PruneError } from "../errors.js";
import type { Architecture } from "./architecture.js";
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
  const tensors: MatchedTensor<T>[] = [];
  const present = new Set<string>();
  const packed = new Set<string>();
  for (const tensor of stored) {
    const { template, ...place } = splitName(tensor.name);
    if (isLeftOut(architecture, tensor.name, template)) continue;
    const shapes = rows.get(template) ?? [];
    const row = shapes.find(({ axes }) => axes.length === tensor.shape.length) ?? shapes[0];
    if (!row || !isPlaced(row, place, architecture)) throw unknownTensor(tensor.name, template, architecture, [...rows.keys()]);
    checkShape(tensor, row, architecture);
    tensors.push({ stored: tensor, row, ...place });
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
    if (row.alias) add(row.alias, row);
    if (quantization) for (const part of partsOf(row, quantization, table)) add(part.name, part);
  }
  return byName;
}

/** The layout that most of the stored names are of. */
function findLayout(architecture: Architecture, stored: readonly StoredTensor[]): LayoutName {
  const templates = stored.map(({ name }) => splitName(name).template);
  const known = (layout: Layout): number => {
    const names = new Set(architectureRows(architecture, layout.name).map(({ name }) => name));
    return templates.filter((template) => names.has(template)).length;
  };
  const counted = architecture.table.layouts.map((layout) => ({ name: layout.name, known: known(layout) }));
  return counted.reduce((best, next) => (next.known > best.known ? next : best)).name;
}

function isLeftOut({ table }: Architecture, name: string, template: string): boolean {
  return (
    table.obsolete.includes(template) || (table.multiTokenPrediction !== undefined && name.startsWith(table.multiTokenPrediction.prefix))
  );
}

/** `model.layers.7.mlp.experts.3.x` -> `model.layers.{layer}.mlp.experts.{expert}.x`, 7, 3. */
function splitName(name: string): { template: string } & Place {
  const layer = /\.layers\.(0|[1-9]\d*)\./.exec(name);
  const expert = /\.experts\.(0|[1-9]\d*)\./.exec(name);
  return {
    template: name
      .replace(layer?.[0] ?? "", layer ? `.layers.${LAYER}.` : "")
      .replace(expert?.[0] ?? "", expert ? `.experts.${EXPERT}.` : ""),
    layer: layer ? Number(layer[1]) : undefined,
    expert: expert ? Number(expert[1]) : undefined,
  };
}

function isPlaced(row: StoredRow, { layer, expert }: Place, { layers, hyperparameters }: Architecture): boolean {
  // A name may hold the words that stand for a number.
  if (row.perLayer !== (layer !== undefined) || row.perExpert !== (expert !== undefined)) return false;
  if (expert !== undefined && expert >= (hyperparameters.num_moe_experts ?? 0)) return false;
  if (layer === undefined) return true;
  const kind = layers[layer];
  return kind !== undefined && (row.on?.includes(kind) ?? true);
}

function checkShape(tensor: StoredTensor, row: StoredRow, architecture: Architecture): void {
  const expected = rowShape(row, architecture);
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
