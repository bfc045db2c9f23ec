/** A tensor to be laid out, with its size in bytes. */
export interface Sized {
  readonly name: string;
  readonly bytes: number;
}

/** One file of a checkpoint and the tensors that it holds, in order. */
export interface ShardLayout<T extends Sized> {
  readonly file: string;
  readonly tensors: readonly T[];
}

const SINGLE_FILE = "model.safetensors";

/**
 * Spreads tensors over files that hold at most `capacity` bytes (or one larger tensor), keeping their order, under the names that the Hugging
 * Face loaders look for.
 */
export function layOutShards<T extends Sized>(tensors: readonly T[], capacity: number): ShardLayout<T>[] {
  const groups: T[][] = [];
  let filled = Number.POSITIVE_INFINITY;
  for (const tensor of tensors) {
    if (filled + tensor.bytes > capacity) {
      groups.push([]);
      filled = 0;
    }
    groups.at(-1)?.push(tensor);
    filled += tensor.bytes;
  }
  const number = (n: number): string => String(n).padStart(5, "0");
  return groups.map((group, i) => ({
    file: groups.length === 1 ? SINGLE_FILE : `model-${number(i + 1)}-of-${number(groups.length)}.safetensors`,
    tensors: group,
  }));
}
