import { createHash } from "node:crypto";
import { join } from "node:path";
import { throwIfCancelled } from "./cancel.js";
import { compareTensors, type PlacedTensor } from "./checkpoint/compareTensors.js";
import { type CutTensor, cutShape, rowCount } from "./checkpoint/cutTensor.js";
import type { PlanFile } from "./checkpoint/planFile.js";
import { PruneError } from "./errors.js";
import { type Parent, weightsFor, weightsOf } from "./inspect.js";
import { slicesInto } from "./policy/rearrange.js";
import type { Slices, TensorPart } from "./policy/slices.js";
import type { RunOptions } from "./progress.js";
import { byteLength } from "./tensor.js";

/** Which values are compared with the parent's. */
export interface ValueOptions {
  /** Rows of each tensor: the first, the last, and some that follow from its name. Default 4, read in seconds at any size. */
  readonly rows?: number;
  /** Every byte. Takes reading child and parent once. */
  readonly full?: boolean;
}

/** How much of a child was compared with its parent. */
export interface ComparedValues {
  readonly parent: string;
  readonly tensors: number;
  /** Bytes of the child that were compared, of all that its tensors have. */
  readonly bytes: number;
  readonly ofBytes: number;
}

const DEFAULT_ROWS = 4;

type StoredTensor = Parent["checkpoint"]["tensors"][number];

interface Comparison {
  readonly child: PlacedTensor;
  readonly parent: PlacedTensor;
  readonly cut: CutTensor;
  readonly rows: readonly number[] | undefined;
  readonly bytes: number;
}

/**
 * Compares a child's bytes with those of its parent at the positions that a plan keeps. It gathers them itself: nothing of what cut the
 * child is used.
 *
 * @throws PruneError VERIFY_FAILED that names tensor, row and position
 */
export async function verifyValues(
  child: Parent,
  parent: Parent,
  plan: PlanFile,
  { rows = DEFAULT_ROWS, full = false, signal, onProgress }: ValueOptions & RunOptions,
): Promise<ComparedValues> {
  const weights = weightsFor(parent, child.checkpoint.torchDist !== undefined, plan);
  const slices = slicesInto(weightsOf(child).layout, parent.architecture, plan.kept, weights);
  const comparisons = pairUp(child, parent, slices, full ? undefined : rows);
  const total = comparisons.reduce((sum, { bytes }) => sum + bytes, 0);
  let done = 0;
  for (const { child: ours, parent: theirs, cut, rows: some } of comparisons) {
    await compareTensors(ours, theirs, cut, some ?? upTo(rowCount(cut)), (bytes) => {
      throwIfCancelled(signal);
      done += bytes;
      onProgress?.({ phase: "comparing", done, total, unit: "bytes", etaSeconds: undefined });
    });
  }
  const ofBytes = child.checkpoint.tensors.reduce((sum, { bytes }) => sum + bytes, 0);
  return { parent: parent.checkpoint.dir, tensors: child.checkpoint.tensors.length, bytes: done, ofBytes };
}

/** Finds each tensor of the child that a plan makes, and what it is made of. Throws VERIFY_FAILED where these are not the child's. */
function pairUp(child: Parent, parent: Parent, { indexSets, tensors }: Slices<StoredTensor>, rows: number | undefined): Comparison[] {
  const { dir } = child.checkpoint;
  const [ours, theirs] = [child, parent].map(placesOf) as [Places, Places];
  const comparisons = tensors.flatMap(({ name, parts, shape }) => {
    const found = ours.get(name);
    if (!found) throw differs(dir, `it has no ${name}, which the plan makes`);
    const dtype = parts[0]?.source.dtype;
    if (found.tensor.dtype !== dtype || String(found.tensor.shape) !== String(shape)) {
      throw differs(dir, `${name} is ${found.tensor.dtype} [${found.tensor.shape}]; the plan makes ${dtype} [${shape}]`);
    }
    let { begin } = found.tensor;
    return parts.map((part) => {
      const source = theirs.get(part.source.name);
      if (!source) throw differs(dir, `its ${name} is made of ${part.source.name}, which the parent does not hold`);
      const cut = cutOf(part, indexSets);
      const placed = { ...found.tensor, shape: cutShape(cut), begin, end: begin + byteLength({ dtype: cut.dtype, shape: cutShape(cut) }) };
      begin = placed.end;
      const all = rowCount(cut);
      const some = rows === undefined ? undefined : sampleRows(name, all, rows);
      const bytes = (placed.end - placed.begin) * (all === 0 ? 0 : (some?.length ?? all) / all);
      return { child: { ...found, tensor: placed }, parent: source, cut, rows: some, bytes };
    });
  });
  if (ours.size > tensors.length) {
    const made = new Set(tensors.map(({ name }) => name));
    throw differs(dir, `it holds ${[...ours.keys()].find((name) => !made.has(name))}, which the plan does not make`);
  }
  return comparisons;
}

type Places = ReadonlyMap<string, PlacedTensor>;

function placesOf({ checkpoint }: Parent): Places {
  const { headers, torchDist, tensors, dir } = checkpoint;
  if (!torchDist) return new Map(headers.flatMap(({ path, tensors }) => tensors.map((tensor) => [tensor.name, { path, tensor }] as const)));
  const stored = new Map(torchDist.tensors.map((tensor) => [tensor.key, tensor]));
  return new Map(
    tensors.flatMap(({ name, dtype, shape, bytes, file, view }): [string, PlacedTensor][] => {
      const whole = view && stored.get(view.key);
      if (!whole) return [];
      return [
        [
          name,
          { path: join(dir, file), tensor: { name, dtype, shape, begin: 0, end: bytes }, view: { dir, tensor: whole, index: view.index } },
        ],
      ];
    }),
  );
}

function cutOf({ source, axes, blocks, shift }: TensorPart<StoredTensor>, indexSets: Slices["indexSets"]): CutTensor {
  const keptBy = (ids: readonly string[]): CutTensor["axes"] => ids.map((id) => indexSets.get(id));
  return {
    dtype: source.dtype,
    shape: source.shape,
    axes: keptBy(axes),
    blocks: blocks.map(keptBy),
    ...(shift !== undefined && { shift }),
  };
}

/** The first row, the last, and others that follow from a name, ascending. */
function sampleRows(name: string, all: number, wanted: number): number[] {
  if (wanted >= all) return [...upTo(all)];
  const sample = new Set([0, all - 1].slice(0, wanted));
  for (let draw = 0; sample.size < wanted; draw++) {
    sample.add(createHash("sha256").update(`${name} ${draw}`).digest().readUInt32LE() % all);
  }
  return [...sample].sort((a, b) => a - b);
}

function* upTo(end: number): Generator<number> {
  for (let i = 0; i < end; i++) yield i;
}

function differs(dir: string, what: string): PruneError {
  return new PruneError("VERIFY_FAILED", `${dir}: ${what}`, { hint: "the folder was changed after it was cut; slice the parent again" });
}
