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

/** Names the files of a checkpoint, by the number of each, from 0, and of all. */
export type ShardName = (index: number, count: number) => string;

/** The names that the Hugging Face loaders look for. */
export const safetensorsName: ShardName = (index, count) => {
  const number = (n: number): string => String(n).padStart(5, "0");
  return count === 1 ? "model.safetensors" : `model-${number(index + 1)}-of-${number(count)}.safetensors`;
};

/** The names that Megatron gives to files that one rank writes. */
export const torchDistName: ShardName = (index) => `__0_${index}.distcp`;

/** Spreads tensors over files that hold at most `capacity` bytes (or one larger tensor), keeping their order. */
export function layOutShards<T extends Sized>(tensors: readonly T[], capacity: number, name = safetensorsName): ShardLayout<T>[] {
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
  return groups.map((group, index) => ({ file: name(index, groups.length), tensors: group }));
}
