import type { Slices, TensorPart, TensorSlice } from "../slices.js";
import { partShape } from "../slices.js";
import type { StoredTensor } from "../tensors.js";
import type { NetworkAxis, NetworkFacts, NetworkParameter } from "./facts.js";
import { axisLength, type KeptChannels, keptLength, keptPositions } from "./keptChannels.js";

/** Attributes of a module of a child, which count what was cut. */
export interface ModuleSizes {
  /** Dotted module path. */
  readonly module: string;
  readonly attributes: Readonly<Record<string, number>>;
}

/** How a network becomes its child: slices of its own tensors, and the modules whose attributes count something else then. */
export interface NetworkChild extends Slices {
  readonly modules: readonly ModuleSizes[];
  /** All that count channels, whether they change or not. */
  readonly layers: readonly ModuleSizes[];
}

/** The child that keeps some channels. */
export function networkChild({ parameters, layers }: NetworkFacts, kept: KeptChannels): NetworkChild {
  const sets = new AxisSets(kept);
  const sizes = (which: (axis: NetworkAxis) => boolean): ModuleSizes[] =>
    layers.flatMap(({ module, attributes }) => {
      const found = Object.entries(attributes).filter(([, axis]) => which(axis));
      const counted = found.map(([name, axis]) => [name, keptLength(axis, kept)]);
      return found.length === 0 ? [] : [{ module, attributes: Object.fromEntries(counted) }];
    });
  return {
    tensors: parameters.map((parameter) => sliceParameter(parameter, sets)),
    indexSets: sets.byId,
    modules: sizes((axis) => keptLength(axis, kept) !== axisLength(axis)),
    layers: sizes(() => true),
  };
}

function sliceParameter({ name, axes, blocks }: NetworkParameter, sets: AxisSets): TensorSlice {
  const shape = axes.map((axis, at) => axisLength(axis) / (at === 1 ? blocks : 1));
  const part = blocks === 1 ? plainPart({ name, shape }, axes, sets) : blockedPart({ name, shape }, axes, blocks, sets);
  return { name, parts: [part], shape: partShape(part, sets.byId) };
}

function plainPart(source: StoredTensor, axes: readonly NetworkAxis[], sets: AxisSets): TensorPart {
  return { source, axes: axes.map((axis) => sets.idOf(axis)), blocks: [] };
}

/** Of each block of rows, the columns that are its own. */
function blockedPart(source: StoredTensor, axes: readonly NetworkAxis[], blocks: number, sets: AxisSets): TensorPart {
  const [rows = [], columns = [], ...others] = axes;
  const behind = others.map((axis) => sets.idOf(axis));
  const [first, second] = [sets.idOf(rows), sets.idOf(columns)];
  if (second === "") return { source, axes: [first, "", ...behind], blocks: [] };
  const height = axisLength(rows) / blocks;
  const kept = sets.byId.get(first) ?? Array.from({ length: axisLength(rows) }, (_, row) => row);
  const own = Array.from({ length: blocks }, (_, block) => [sets.idOfBlock(columns, block, blocks), ...behind]);
  return { source, axes: [first], blocks: kept.map((row) => own[Math.floor(row / height)] ?? []) };
}

/** The index sets of a cut: the same axis keeps the same positions, whichever tensor it belongs to. */
class AxisSets {
  readonly byId = new Map<string, readonly number[]>();
  readonly #kept: KeptChannels;

  constructor(kept: KeptChannels) {
    this.#kept = kept;
  }

  /** The id of the positions that an axis keeps, or empty where it stays whole. */
  idOf(axis: NetworkAxis): string {
    const id = axis.map(describePart).join(" + ");
    if (this.byId.has(id)) return id;
    const positions = keptPositions(axis, this.#kept);
    if (!positions) return "";
    this.byId.set(id, positions);
    return id;
  }

  /** The same of one of the equal stretches of an axis, counted from its beginning. */
  idOfBlock(axis: NetworkAxis, block: number, blocks: number): string {
    const id = `${this.idOf(axis)}: ${block + 1} of ${blocks}`;
    const width = axisLength(axis) / blocks;
    const own = (this.byId.get(this.idOf(axis)) ?? []).filter((at) => Math.floor(at / width) === block);
    this.byId.set(
      id,
      own.map((at) => at - block * width),
    );
    return id;
  }
}

function describePart(part: NetworkAxis[number]): string {
  if ("fixed" in part) return `${part.fixed}`;
  const { group, begin, end, repeat } = part;
  return `group ${group} ${begin}-${end - 1}${repeat === 1 ? "" : ` x ${repeat}`}`;
}
