import type { FileHandle } from "node:fs/promises";
import { PruneError } from "../errors.js";
import { type CutTensor, itemOf, type RowPiece, rowPieces } from "./cutTensor.js";
import type { HeaderTensor } from "./header.js";
import { type StoredView, ViewBytes } from "./megatron/viewBytes.js";
import { openRegularFile } from "./regularFile.js";
import { shifted } from "./shifted.js";

/** A tensor and where it lies. */
export interface PlacedTensor {
  /** The file that holds it, or says which do. */
  readonly path: string;
  /** Its bytes are those from `begin` to `end` of the file, or of the view. */
  readonly tensor: HeaderTensor;
  /** Where it lies in a torch_dist folder. */
  readonly view?: StoredView;
}

// Of each of the two files as much as this is in memory at once.
const WINDOW_BYTES = 4 << 20;

/**
 * Compares rows of a child's tensor with what a cut keeps of its parent's, byte by byte.
 *
 * @param cut - what is kept, and what is added to it
 * @param rows - which to compare, ascending
 * @param onBytes - told of the bytes compared; may throw to end the work
 * @throws PruneError VERIFY_FAILED that names the first byte that differs, or at which a file ends
 */
export async function compareTensors(
  child: PlacedTensor,
  parent: PlacedTensor,
  cut: CutTensor,
  rows: Iterable<number>,
  onBytes: (bytes: number) => void,
): Promise<void> {
  await using ours = await openBytes(child);
  await using theirs = await openBytes(parent);
  const { bytes: itemBytes } = itemOf(cut.dtype);
  for (const batch of batches(rowPieces(cut, rows, WINDOW_BYTES))) {
    const [first, last] = [batch[0], batch.at(-1)];
    if (!first || !last) continue;
    const found = await ours.read(child.tensor.begin + first.childBegin, child.tensor.begin + last.childEnd);
    const stored = await theirs.read(parent.tensor.begin + first.parentBegin, parent.tensor.begin + last.parentEnd);
    const kept = cut.shift === undefined ? stored : shifted(stored, cut.dtype, cut.shift);
    for (const piece of batch) {
      const item = firstDifference(
        found.subarray(piece.childBegin - first.childBegin, piece.childEnd - first.childBegin),
        kept.subarray(piece.parentBegin - first.parentBegin, piece.parentEnd - first.parentBegin),
        piece.segment.picks,
        itemBytes,
      );
      if (item !== undefined) throw differs(child, parent, piece, item);
    }
    onBytes(found.length);
  }
}

/** Groups pieces that follow each other in the child and lie near each other in the parent, so that each group takes one read of each. */
function* batches(pieces: Iterable<RowPiece>): Generator<RowPiece[]> {
  let batch: RowPiece[] = [];
  for (const piece of pieces) {
    const [first, last] = [batch[0], batch.at(-1)];
    const joins = last && first && piece.childBegin === last.childEnd && piece.parentBegin >= last.parentEnd;
    if (batch.length > 0 && !(joins && piece.parentEnd - first.parentBegin <= WINDOW_BYTES)) {
      yield batch;
      batch = [];
    }
    batch.push(piece);
  }
  if (batch.length > 0) yield batch;
}

/** The first item that is not the parent's. */
function firstDifference(found: Buffer, kept: Buffer, picks: Uint32Array | undefined, itemBytes: number): number | undefined {
  if (!picks) {
    if (found.equals(kept)) return undefined;
    return Math.floor(found.findIndex((byte, at) => byte !== kept[at]) / itemBytes);
  }
  const [ours, theirs] = [found, kept].map((bytes) => inWords(bytes, itemBytes)) as [Words, Words];
  const words = ours.length / picks.length;
  for (let item = 0; item < picks.length; item++) {
    const [at, source] = [item * words, (picks[item] ?? 0) * words];
    for (let word = 0; word < words; word++) if (ours[at + word] !== theirs[source + word]) return item;
  }
  return undefined;
}

type Words = Uint8Array | Uint16Array | Uint32Array;

/** Bytes in the widest words that make up an item. */
function inWords({ buffer, byteOffset, length }: Buffer, itemBytes: number): Words {
  if (itemBytes % 4 === 0) return new Uint32Array(buffer, byteOffset, length / 4);
  if (itemBytes % 2 === 0) return new Uint16Array(buffer, byteOffset, length / 2);
  return new Uint8Array(buffer, byteOffset, length);
}

interface Bytes extends AsyncDisposable {
  read(begin: number, end: number): Promise<Buffer>;
}

async function openBytes({ path, tensor, view }: PlacedTensor): Promise<Bytes> {
  if (view) return new ViewBytes(view);
  const file = await openRegularFile(path);
  return {
    read: (begin, end) => readRange(file, path, tensor.name, begin, end),
    [Symbol.asyncDispose]: () => file.close(),
  };
}

async function readRange(file: FileHandle, path: string, name: string, begin: number, end: number): Promise<Buffer> {
  // Not from the pool, whose buffers may begin anywhere: words have to be aligned.
  const bytes = Buffer.allocUnsafeSlow(end - begin);
  for (let filled = 0; filled < bytes.length; ) {
    const { bytesRead } = await file.read(bytes, filled, bytes.length - filled, begin + filled);
    if (bytesRead === 0) throw new PruneError("VERIFY_FAILED", `${path} ends within ${name}`, { hint: "it changed while it was read" });
    filled += bytesRead;
  }
  return bytes;
}

function differs(child: PlacedTensor, parent: PlacedTensor, { row, parentRow, segment }: RowPiece, item: number): PruneError {
  const { elements } = itemOf(child.tensor.dtype);
  const position = segment.childFirst + item * elements;
  const source = segment.parentFirst + (segment.picks?.[item] ?? item) * elements;
  return new PruneError(
    "VERIFY_FAILED",
    `${child.path}: ${child.tensor.name} differs at row ${row}, position ${position}, from row ${parentRow}, position ${source}, of ${parent.tensor.name} in ${parent.path}`,
    { hint: "the child was changed after it was cut, or was never whole: slice the parent again" },
  );
}
