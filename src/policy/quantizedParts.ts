import { PruneError } from "../errors.js";
import type { Axis, StoredAxis } from "./axes/expression.js";
import type { FamilyTable } from "./families/table.js";
import { DEQUANTISE, type Quantization } from "./quantization.js";
import { type ArchitectureRow, type MatchedTensor, nameAt, type StoredRow, type StoredTensor } from "./tensors.js";

/** What stands beside, or in the place of, a quantised weight: its axes are those of the weight, divided by what one scale stands for. */
export interface PartRow extends StoredRow {
  readonly weight: ArchitectureRow;
  /** What it has to be stored as. */
  readonly dtypes: readonly string[];
  /** It scales the weight, or what the weight is multiplied by; or it is stored in the weight's stead. */
  readonly role: "scale" | "input_scale" | "packed";
  /** The row without which it makes no sense: of the weight itself, or of the weight's other part. */
  readonly beside: string;
}

const WEIGHT = "weight";
const WEIGHT_DTYPES = ["F8_E4M3"];
const SCALE_DTYPES = ["F32", "BF16", "F16", "F8_E8M0"];
// The OCP microscaling format: 32 values of 4 bits in 16 bytes, under one exponent.
const MX_BLOCK = 32;
const MX_BLOCK_BYTES = 16;

interface PartAxes {
  readonly axes: readonly StoredAxis[];
  readonly texts: readonly string[];
}

/** The parts that a row's weight may have under a quantisation; one that is stored in several shapes is there in each. */
export function partsOf(row: ArchitectureRow, { scales }: Quantization, table: FamilyTable): PartRow[] {
  if (!row.multiplies) return [];
  if (scales.per === "mxfp4") return table.mxfp4 && row.routed ? mxfp4Parts(row) : [];
  const weight = { axes: row.axes, texts: row.axisTexts };
  const scalar = [leading(weight, 2), append(leading(weight, 2), fixed(1))];
  const beside = { beside: row.name, dtypes: SCALE_DTYPES };
  const scaled = (ending: string, shapes: readonly PartAxes[]): PartRow[] =>
    shapes.map((axes) => part(row, row.name + ending, axes, { ...beside, role: "scale" }));
  const inputScales = ["input_scale", "activation_scale"]
    .filter(() => row.name.endsWith(WEIGHT))
    .flatMap((name) => scalar.map((axes) => part(row, row.name.slice(0, -WEIGHT.length) + name, axes, { ...beside, role: "input_scale" })));
  switch (scales.per) {
    case "block":
      return [...scaled(scales.ending, [inBlocks(weight, scales.sizes)]), ...inputScales];
    case "channel":
      return [...scaled("_scale", [append(leading(weight, 1), fixed(1))]), ...inputScales];
    case "tensor":
      return [...scaled("_scale", scalar), ...scaled("_scale_inv", scalar), ...inputScales];
  }
}

/**
 * Checks that every quantised weight has its scales, that no scale is without its weight, and what both are stored as.
 *
 * @throws PruneError MISSING_TENSOR, BAD_TENSOR, or BAD_CONFIG where nothing is quantised
 */
export function checkParts(quantization: Quantization, tensors: readonly MatchedTensor[]): void {
  const stored = new Map(tensors.map((tensor) => [nameAt(tensor.row.name, tensor), tensor.stored]));
  const parts = tensors.filter((tensor): tensor is MatchedTensor & { row: PartRow } => isPart(tensor.row));
  const scaled = new Set<StoredTensor>();
  for (const { row, stored: found, ...place } of parts) {
    checkDtype(found, row.dtypes);
    const neededName = nameAt(row.beside, place);
    const needed = stored.get(neededName);
    if (!needed) throw missing(neededName, `to which ${found.name} belongs`);
    if (row.role !== "packed") checkDtype(needed, WEIGHT_DTYPES);
    if (row.role === "scale") scaled.add(needed);
  }
  if (parts.length === 0) {
    throw new PruneError("BAD_CONFIG", `config.json states ${quantization.name}, and no weight is stored so`, {
      hint: `remove ${quantization.key} from config.json, if the weights were dequantised`,
    });
  }
  const bare = tensors.find(({ stored, row }) => row.multiplies && isQuantized(stored) && !scaled.has(stored));
  if (bare) throw missing(`${bare.stored.name}_scale`, `without which ${bare.stored.name}, in ${bare.stored.dtype}, means nothing`);
}

/** Whether a row is a part of a quantised weight. */
export function isPart(row: StoredRow): row is PartRow {
  return "weight" in row;
}

function isQuantized({ dtype }: StoredTensor): boolean {
  return dtype !== undefined && WEIGHT_DTYPES.includes(dtype);
}

function mxfp4Parts(row: ArchitectureRow): PartRow[] {
  const [expert, input, output] = row.axes;
  const [expertText = "", inputText = "", outputText = ""] = row.axisTexts;
  if (!expert || !input || !output) return [];
  const scales: PartAxes = {
    axes: [expert, output, { kind: "blocks", of: input, size: MX_BLOCK }],
    texts: [expertText, outputText, blocksText(inputText, MX_BLOCK)],
  };
  const [blocksName, scalesName] = [`${row.name}_blocks`, `${row.name}_scales`];
  const packed = { role: "packed", dtypes: ["U8"] } as const;
  return [
    part(row, blocksName, append(scales, fixed(MX_BLOCK_BYTES)), { ...packed, beside: scalesName }),
    part(row, scalesName, scales, { ...packed, beside: blocksName }),
  ];
}

type Nature = Pick<PartRow, "beside" | "role" | "dtypes">;

function part(weight: ArchitectureRow, name: string, { axes, texts }: PartAxes, rest: Nature): PartRow {
  return { ...weight, ...rest, weight, name, aliases: [], axes, axisTexts: texts, multiplies: false };
}

function inBlocks(weight: { axes: readonly Axis[]; texts: readonly string[] }, sizes: readonly [number, number]): PartAxes {
  const first = weight.axes.length - sizes.length;
  const sizeOf = (axis: number): number => sizes[axis - first] ?? 1;
  return {
    axes: weight.axes.map((of, axis) => (sizeOf(axis) === 1 ? of : { kind: "blocks", of, size: sizeOf(axis) })),
    texts: weight.texts.map((text, axis) => (sizeOf(axis) === 1 ? text : blocksText(text, sizeOf(axis)))),
  };
}

function blocksText(text: string, size: number): string {
  return `(${text}) / ${size}`;
}

function leading({ axes, texts }: PartAxes, dropped: number): PartAxes {
  return { axes: axes.slice(0, -dropped), texts: texts.slice(0, -dropped) };
}

function append({ axes, texts }: PartAxes, last: Axis & { kind: "fixed" }): PartAxes {
  return { axes: [...axes, last], texts: [...texts, String(last.size)] };
}

function fixed(size: number): Axis & { kind: "fixed" } {
  return { kind: "fixed", size };
}

function checkDtype({ name, dtype }: StoredTensor, legal: readonly string[]): void {
  if (dtype === undefined || legal.includes(dtype)) return;
  throw new PruneError("BAD_TENSOR", `${name} is stored as ${dtype}; by config.json's quantisation it is ${legal.join(" or ")}`, {
    hint: DEQUANTISE,
  });
}

function missing(name: string, why: string): PruneError {
  return new PruneError("MISSING_TENSOR", `the checkpoint has no ${name}, ${why}`, { hint: "download the checkpoint again" });
}
