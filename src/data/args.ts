import type { Batch } from "../tensor.js";
import { type ArgValue, bad, type Place, splitArgs, toTensor, within } from "./argTensors.js";

/** Arguments by name. */
export type NamedArgs = { readonly [name: string]: ArgValue };

/**
 * Arguments of a model's forward, as `args` of torch.onnx.export: one value; an array of positional arguments, `input_ids`,
 * `attention_mask`, `position_ids`; such an array that ends with an object of arguments by name, which an empty object behind it would turn
 * into a positional one. An object alone is a batch by names. Rows of plain numbers are one value, token ids, and no positional arguments.
 */
export type ForwardArgs = ArgValue | NamedArgs | readonly (ArgValue | NamedArgs)[];

/** What a model would be run with: it states the batch size and the sequence length that metrics are for. */
export type DummyInput = ForwardArgs;

/** Sizes of a forward pass. */
export interface Workload {
  readonly batchSize: number;
  readonly seqLength: number;
}

const POSITIONAL = ["input_ids", "attention_mask", "position_ids"] as const;
const FORM: Pick<Place, "hint" | "isValue"> = {
  hint: "arguments are one value, [input_ids, attention_mask], or { input_ids, ... }",
  isValue: isRows,
};

/**
 * Makes a batch of the arguments of one forward pass.
 *
 * @param where - how errors name it, `batch 3` for one
 * @throws PruneError BAD_DATA that names the argument
 */
export function toBatch(args: ForwardArgs, where = "the batch"): Batch {
  return readArgs(args, { code: "BAD_DATA", where, ...FORM });
}

/**
 * The sizes of a dummy input, from its `input_ids`; undefined where there is none.
 *
 * @throws PruneError BAD_OPTION that names the argument
 */
export function workloadOf(dummyInput: DummyInput | null | undefined): Workload | undefined {
  if (dummyInput === null || dummyInput === undefined) return undefined;
  const place: Place = { code: "BAD_OPTION", where: "dummyInput", ...FORM };
  const shape = readArgs(dummyInput, place)["input_ids"]?.shape ?? [];
  const [batchSize = 0, seqLength = 0, ...others] = shape;
  if (batchSize > 0 && seqLength > 0 && others.length === 0) return { batchSize, seqLength };
  throw bad(within(place, "input_ids"), `is [${shape.join(", ")}]; token ids are [batch, sequence], neither of them 0`);
}

function readArgs(args: unknown, place: Place): Batch {
  const { positional, named } = splitArgs(args, place);
  if (positional.length > POSITIONAL.length)
    throw bad(place, `has ${positional.length} positional arguments; a causal language model takes ${POSITIONAL.join(", ")}`);
  const values = new Map<string, unknown>(positional.map((value, index) => [POSITIONAL[index] as string, value])); // checked above
  for (const [name, value] of Object.entries(named)) {
    if (values.has(name)) throw bad(place, `has ${name} twice, by its position and by its name`);
    values.set(name, value);
  }
  if (!values.has(POSITIONAL[0])) throw bad(place, `has no input_ids${values.size > 0 ? ` beside ${[...values.keys()].join(", ")}` : ""}`);
  return Object.fromEntries([...values].map(([name, value]) => [name, toTensor(value, within(place, name))]));
}

function isRows(value: readonly unknown[]): boolean {
  const isRow = (row: unknown): boolean => Array.isArray(row) && row.every((item) => typeof item === "number");
  return value.length > 0 && (isRow(value) || value.every(isRow));
}
