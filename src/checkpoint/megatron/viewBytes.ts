import { join } from "node:path";
import { DTYPE_BITS } from "../../tensor.js";
import { locateChunk } from "./checkChunks.js";
import type { Chunk, DistTensor } from "./distMetadata.js";
import { RangeFile } from "./rangeFile.js";

/** A tensor of the model within one of a torch_dist folder: all of that at positions of its first axes. */
export interface StoredView {
  readonly dir: string;
  readonly tensor: DistTensor;
  readonly index: readonly number[];
}

interface OpenChunk {
  readonly file: RangeFile;
  readonly offset: number;
}

/** The bytes of a view, row-major, gathered from the chunks that hold them. */
export class ViewBytes implements AsyncDisposable {
  readonly #view: StoredView;
  readonly #itemBytes: number;
  /** Elements of the stored tensor before the view. */
  readonly #first: number;
  /** The chunks that hold some of the view. */
  readonly #held: readonly Chunk[];
  readonly #files = new Map<string, Promise<RangeFile>>();
  readonly #chunks = new Map<Chunk, Promise<OpenChunk>>();

  constructor(view: StoredView) {
    const { tensor, index } = view;
    this.#view = view;
    this.#itemBytes = DTYPE_BITS[tensor.dtype] / 8;
    this.#held = tensor.chunks.filter(({ offsets, sizes }) => index.every((at, axis) => holds(at, offsets[axis] ?? 0, sizes[axis] ?? 1)));
    const elements = tensor.shape.slice(index.length).reduce((a, b) => a * b, 1);
    this.#first = index.reduce((at, i, axis) => at * (tensor.shape[axis] ?? 1) + i, 0) * elements;
  }

  /** Reads a range of bytes. Throws BAD_TORCH_DIST where a file is not what .metadata says. */
  async read(begin: number, end: number): Promise<Buffer> {
    const { tensor } = this.#view;
    // Not from the pool, whose buffers may begin anywhere: words have to be aligned.
    const bytes = Buffer.allocUnsafeSlow(end - begin);
    const last = end / this.#itemBytes + this.#first;
    for (let at = begin / this.#itemBytes + this.#first; at < last; ) {
      const position = positionOf(at, tensor.shape);
      const chunk = this.#held.find(({ offsets, sizes }) => position.every((p, i) => holds(p, offsets[i] ?? 0, sizes[i] ?? 1)));
      if (!chunk) throw new RangeError(`${tensor.key} has no position ${position.join()}`);
      const { run, from } = runWithin(position, chunk, tensor.shape);
      const count = Math.min(run, last - at);
      const { file, offset } = await this.#open(chunk);
      const read = await file.read(offset + from * this.#itemBytes, count * this.#itemBytes);
      read.copy(bytes, (at - this.#first) * this.#itemBytes - begin);
      at += count;
    }
    return bytes;
  }

  #open(chunk: Chunk): Promise<OpenChunk> {
    const found = this.#chunks.get(chunk) ?? this.#locate(chunk);
    this.#chunks.set(chunk, found);
    return found;
  }

  async #locate(chunk: Chunk): Promise<OpenChunk> {
    const opening = this.#files.get(chunk.file) ?? RangeFile.open(join(this.#view.dir, chunk.file));
    this.#files.set(chunk.file, opening);
    const file = await opening;
    return { file, offset: (await locateChunk(file, this.#view.tensor, chunk)).offset };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const opened = await Promise.allSettled(this.#files.values());
    await Promise.all(opened.map(async (file) => file.status === "fulfilled" && file.value[Symbol.asyncDispose]()));
  }
}

function holds(position: number, offset: number, size: number): boolean {
  return position >= offset && position < offset + size;
}

function positionOf(element: number, shape: readonly number[]): number[] {
  const position: number[] = [];
  let rest = element;
  for (const size of [...shape].reverse()) {
    position.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  return position;
}

/** How many elements from a position on lie behind each other in the tensor and in a chunk of it, and where they begin in that. */
function runWithin(position: readonly number[], { offsets, sizes }: Chunk, shape: readonly number[]): { run: number; from: number } {
  const inChunk = position.map((at, axis) => at - (offsets[axis] ?? 0));
  const from = inChunk.reduce((sofar, at, axis) => sofar * (sizes[axis] ?? 1) + at, 0);
  let [run, axis] = [1, shape.length];
  // Axes that are whole in the chunk go on from one position to the next.
  while (axis > 0 && (axis === shape.length || sizes[axis] === shape[axis])) {
    axis -= 1;
    const inner = sizes.slice(axis + 1).reduce((a, b) => a * b, 1);
    const within = inChunk.slice(axis + 1).reduce((sofar, at, i) => sofar * (sizes[axis + 1 + i] ?? 1) + at, 0);
    run = ((sizes[axis] ?? 1) - (inChunk[axis] ?? 0)) * inner - within;
  }
  return { run, from };
}
