import { PruneError } from "../errors.js";
import type { Architecture } from "./architecture.js";
import { axisSize } from "./axes/evaluate.js";
import { type Axis, parseAxis } from "./axes/expression.js";
import type { TensorRow } from "./families/table.js";
import { suggestName } from "./nearest.js";

/** What policy needs to know of a tensor on disk. */
export interface StoredTensor {
  readonly name: string;
  readonly shape: readonly number[];
}

/** A row of the family's table that exists in an architecture, with its axes parsed. */
export interface ArchitectureRow {
  readonly name: string;
  readonly axes: readonly Axis[];
  readonly axisTexts: readonly string[];
  readonly perLayer: boolean;
  /** The checkpoint may lack it, and it is not counted: its storage is another tensor's. */
  readonly shared: boolean;
  /** The forward pass picks rows of it and multiplies by none. */
  readonly lookup: boolean;
}

/** A stored tensor with the row that it is an instance of. */
export interface MatchedTensor<T extends StoredTensor = StoredTensor> {
  readonly stored: T;
  readonly row: ArchitectureRow;
  /** The layer it belongs to; undefined for what stands outside of the layers. */
  readonly layer: number | undefined;
}

const LAYER = "{layer}";

/** The rows that exist under an architecture's switches. */
export function architectureRows({ table, flags }: Architecture): ArchitectureRow[] {
  return table.tensors
    .filter((row) => row.when === undefined || flags[row.when])
    .map((row: TensorRow) => ({
      name: row.name,
      axes: row.axes.map(parseAxis),
      axisTexts: row.axes,
      perLayer: row.name.includes(LAYER),
      shared: row.tiedTo !== undefined && flags.tied,
      lookup: row.lookup ?? false,
    }));
}

/** The shape that a row's tensors have. */
export function rowShape(row: ArchitectureRow, { sizes }: Architecture): number[] {
  return row.axes.map((axis) => axisSize(axis, sizes));
}

/** A row's name with its layer filled in. */
export function nameInLayer(name: string, layer: number): string {
  return name.replace(LAYER, String(layer));
}

/**
 * Finds the row of every stored tensor and checks its shape, and that no row lacks a tensor. Obsolete tensors are left out of the result.
 *
 * @throws PruneError UNKNOWN_TENSOR, BAD_TENSOR (shape) or MISSING_TENSOR, naming the tensor
 */
export function matchTensors<T extends StoredTensor>(architecture: Architecture, stored: Iterable<T>): MatchedTensor<T>[] {
  const rows = new Map(architectureRows(architecture).map((row) => [row.name, row]));
  const obsolete = new Set(architecture.table.obsolete);
  const matched: MatchedTensor<T>[] = [];
  const present = new Set<string>();
  for (const tensor of stored) {
    const { template, layer } = splitLayer(tensor.name);
    if (obsolete.has(template)) continue;
    const row = rows.get(template);
    if (!row) throw unknownTensor(tensor.name, template, architecture, [...rows.keys()]);
    if (layer !== undefined && layer >= architecture.hyperparameters.num_layers) throw layerBeyond(tensor.name, architecture);
    checkShape(tensor, row, architecture);
    matched.push({ stored: tensor, row, layer });
    present.add(tensor.name);
  }
  checkComplete(architecture, rows.values(), present);
  return matched;
}

/** `model.layers.7.mlp.x` -> `model.layers.{layer}.mlp.x`, 7. */
function splitLayer(name: string): { template: string; layer: number | undefined } {
  const match = /\.layers\.(0|[1-9]\d*)\./.exec(name);
  if (!match) return { template: name, layer: undefined };
  return { template: name.replace(match[0], `.layers.${LAYER}.`), layer: Number(match[1]) };
}

function checkShape(tensor: StoredTensor, row: ArchitectureRow, architecture: Architecture): void {
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
    const layers = row.perLayer ? architecture.hyperparameters.num_layers : 1;
    for (let layer = 0; layer < layers; layer++) {
      const name = nameInLayer(row.name, layer);
      if (present.has(name)) continue;
      throw new PruneError("MISSING_TENSOR", `the checkpoint has no ${name}, which ${architecture.table.family} models have`, {
        hint:
          row.name === "lm_head.weight"
            ? 'tied embeddings need "tie_word_embeddings": true in config.json'
            : "download the checkpoint again",
      });
    }
  }
}

function unknownTensor(name: string, template: string, { table }: Architecture, known: readonly string[]): PruneError {
  const nearest = suggestName(template, known).split(" Legal")[0];
  return new PruneError("UNKNOWN_TENSOR", `the ${table.family} family has no tensor ${name} under this config; nothing is copied unseen`, {
    hint: `${nearest} Adapters, quantised weights and remote-code additions must be merged or removed first`,
  });
}

function layerBeyond(name: string, { hyperparameters }: Architecture): PruneError {
  return new PruneError("UNKNOWN_TENSOR", `${name} lies beyond the ${hyperparameters.num_layers} layers that config.json states`);
}
