import { type BatchOptions, type CollectFunc, type DataSource, toBatches } from "../data/toBatches.js";
import { PruneError } from "../errors.js";
import type { CollectSource, ForwardLoop, PythonSource } from "../model/runnable.js";
import { isPythonRef, type PythonRef } from "../pythonRef.js";
import type { Batches } from "../tensor.js";

/** A loop over a model of some kind. */
type AnyLoop = (model: never) => unknown;

/** What brings the batches of a calibration: a `forwardLoop`, or a `dataLoader` with what goes with it. */
export interface CalibrationOptions<Item = never, Loop extends AnyLoop = ForwardLoop> {
  /** Runs the model as often as it likes, here or in the shim. */
  readonly forwardLoop?: Loop | PythonRef | undefined;
  /** Batches, here or in the shim. */
  readonly dataLoader?: DataSource<Item> | PythonRef | undefined;
  /** Makes the arguments of forward of a batch, on the side of the `dataLoader`. Default: the batch is the arguments. */
  readonly collectFunc?: CollectFunc<Item> | PythonRef | undefined;
  /** At most this many batches of the `dataLoader`. Default: all. */
  readonly maxIterDataLoader?: number | undefined;
}

/** What brings batches: themselves, a loop, or Python functions. */
export type BatchSource<Loop> = Batches | Loop | PythonSource;

/**
 * Makes one source of the options under which the reference takes calibration data; undefined where there are none.
 *
 * @throws PruneError BAD_OPTION for options that exclude each other, or that go with a `dataLoader` and have none
 */
export function calibrationSource<Item>(options: CalibrationOptions<Item>): CollectSource | undefined {
  return batchSource(options);
}

/** Like {@link calibrationSource}, of any kind of model: `batchOf` makes a batch of the arguments of its forward. */
export function batchSource<Item, Loop extends AnyLoop>(
  options: CalibrationOptions<Item, Loop>,
  batchOf?: BatchOptions<Item>["toBatch"],
): BatchSource<Loop> | undefined {
  const { forwardLoop, dataLoader, collectFunc, maxIterDataLoader: maxBatches } = options;
  if (forwardLoop !== undefined) {
    refuseBeside("forwardLoop", "a forward loop brings its own batches, and ends by itself", {
      dataLoader,
      collectFunc,
      maxIterDataLoader: maxBatches,
    });
    return isPythonRef(forwardLoop) ? { forwardLoop } : forwardLoop;
  }
  if (dataLoader === undefined) {
    refuseAlone({ collectFunc, maxIterDataLoader: maxBatches });
    return undefined;
  }
  if (!isPythonRef(dataLoader)) {
    if (isPythonRef(collectFunc)) throw sidesDiffer("collectFunc", "dataLoader");
    return toBatches(dataLoader, { collectFunc, maxBatches, toBatch: batchOf });
  }
  if (typeof collectFunc === "function") throw sidesDiffer("dataLoader", "collectFunc");
  return { dataLoader, collectFunc, maxBatches };
}

function refuseBeside(name: string, why: string, others: Readonly<Record<string, unknown>>): void {
  const beside = Object.keys(others).filter((other) => others[other] !== undefined);
  if (beside.length > 0)
    throw new PruneError("BAD_OPTION", `${name} excludes ${beside.join(" and ")}: ${why}`, { hint: "give one or the other" });
}

function refuseAlone(options: Readonly<Record<string, unknown>>): void {
  const given = Object.keys(options).filter((name) => options[name] !== undefined);
  if (given.length > 0)
    throw new PruneError("BAD_OPTION", `${given.join(" and ")} without a dataLoader`, {
      hint: "give the dataLoader whose batches are meant",
    });
}

/** The refusal of a Python function beside one of this side. */
export function sidesDiffer(python: string, here: string): PruneError {
  return new PruneError("BAD_OPTION", `${python} is a Python function and ${here} is not: batches do not travel between them`, {
    hint: "give both as python(...), or both as JavaScript",
  });
}
