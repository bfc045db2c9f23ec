import type { Batch } from "../tensor.js";
import type { ForwardArgs } from "./args.js";
import { bad, type Place, splitArgs, toTensor, within } from "./argTensors.js";

const FORM: Pick<Place, "hint" | "isValue"> = {
  hint: "arguments are one value, an array of values by position, or an object of values by name",
  isValue: isNumbers,
};

/**
 * Makes a batch of the arguments of one forward pass of any network: those by position under their positions, `0` for the first. An array
 * of nothing but numbers and arrays of them is one value.
 *
 * @param where - how errors name it, `batch 3` for one
 * @throws PruneError BAD_DATA that names the argument
 */
export function toNetworkBatch(args: ForwardArgs, where = "the batch"): Batch {
  return readArgs(args, { code: "BAD_DATA", where, ...FORM });
}

/**
 * The dummy input that a network is traced with.
 *
 * @throws PruneError BAD_OPTION where there is none, or that names the argument
 */
export function toDummyBatch(dummyInput: ForwardArgs | null | undefined): Batch {
  const place: Place = { code: "BAD_OPTION", where: "dummyInput", ...FORM };
  if (dummyInput !== null && dummyInput !== undefined) return readArgs(dummyInput, place);
  throw bad(place, "is missing: a network is traced by running it");
}

function readArgs(args: unknown, place: Place): Batch {
  const { positional, named } = splitArgs(args, place);
  const values = [...positional.map((value, at) => [`${at}`, value] as const), ...Object.entries(named)];
  const twice = values.find(([name], at) => values.findIndex(([other]) => other === name) < at);
  if (twice) throw bad(place, `has the argument ${twice[0]} twice, by its position and by its name`);
  if (values.length === 0) throw bad(place, "holds nothing");
  return Object.fromEntries(values.map(([name, value]) => [name, toTensor(value, within(place, name))]));
}

function isNumbers(array: readonly unknown[]): boolean {
  return array.length > 0 && array.every((item) => typeof item === "number" || (Array.isArray(item) && isNumbers(item)));
}
