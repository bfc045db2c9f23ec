import { PruneError } from "../errors.js";
import { type Batch, type Batches, countOf, type Drawn, type DrawnBatches } from "../tensor.js";
import { type ForwardArgs, toBatch } from "./args.js";

/** What batches are drawn from. `size` says how many there will be, once that is known. */
export type DataSource<Item = ForwardArgs> = (AsyncIterable<Item> | Iterable<Item>) & { readonly size?: number | undefined };

/** Makes the arguments of forward of a data loader's batch. */
export type CollectFunc<Item> = (batch: Item) => ForwardArgs | Promise<ForwardArgs>;

/** How a source becomes batches. */
export interface BatchOptions<Item> {
  /** Default: the batch is the arguments. */
  readonly collectFunc?: CollectFunc<Item> | undefined;
  /** At most this many are drawn. Default: all. */
  readonly maxBatches?: number | undefined;
  /** Makes a batch of arguments of forward. Default: as a causal language model has them. */
  readonly toBatch?: ((args: ForwardArgs, where: string) => Batch) | undefined;
}

/**
 * Makes batches of whatever a data loader gives, as they are drawn. No more than `maxBatches` are drawn, and the source's iterator is
 * returned where there would be more.
 *
 * @throws PruneError BAD_DATA while drawing, which names the batch
 */
export function toBatches<Item>(source: DataSource<Item>, options: BatchOptions<Item> = {}): Batches {
  const drawn = drawBatches(source, options);
  return {
    get size() {
      return drawn.size;
    },
    async *[Symbol.asyncIterator](): AsyncGenerator<Batch, void, void> {
      for await (const { batch } of drawn) yield batch;
    },
  };
}

/** The same, each batch with the item that it was made of. */
export function drawBatches<Item>(source: DataSource<Item>, options: BatchOptions<Item> = {}): DrawnBatches<Item> {
  const { maxBatches = Number.POSITIVE_INFINITY, toBatch: batchOf = toBatch } = options;
  const collectFunc = options.collectFunc ?? ((item: Item) => item as ForwardArgs); // whatever it is, batchOf looks
  checkIterable(source);
  return {
    get size() {
      const count = countOf(source as DataSource<Batch>);
      return count === undefined ? undefined : Math.min(count, maxBatches);
    },
    async *[Symbol.asyncIterator](): AsyncGenerator<Drawn<Item>, void, void> {
      let drawn = 0;
      for await (const item of source) {
        yield { item, batch: batchOf(await collectFunc(item), `batch ${drawn}`) };
        drawn += 1;
        if (drawn >= maxBatches) return;
      }
    },
  };
}

function checkIterable(source: unknown): void {
  const iterable = typeof source === "object" && source !== null && (Symbol.asyncIterator in source || Symbol.iterator in source);
  if (iterable && !ArrayBuffer.isView(source)) return;
  throw new PruneError("BAD_DATA", "the data loader is no iterable of batches", {
    hint: "give an array, a generator or an async iterable; for one batch, an array with it",
  });
}
